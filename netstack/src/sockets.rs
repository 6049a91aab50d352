//! smoltcp sockets with their buffers, recycled for the whole process.
//!
//! A connection needs two large buffers for bulk, of which an idle one touches two pages. General allocators spoil that: they
//! zero what they recycle, and so touch all of it. So buffers are carved from slabs that the
//! operating system zeroes page by page on first touch. smoltcp does not give a socket's buffers back, so the socket goes back
//! into the pool with them, last in, first out: the next connection finds it in the cache. Slabs are never freed;
//! memory stays at the peak of what connections have touched at one time.

use parking_lot::Mutex;
use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, SocketBuffer};

/// Bytes of each of a connection's two buffers.
pub(crate) const BUFFER: usize = 256 * 1024;
/// Large enough that every allocator asks the operating system for it (glibc: 32 MiB and more).
const SLAB: usize = 64 * 1024 * 1024;

struct Pool {
    spare: Vec<(SocketSet<'static>, SocketHandle)>,
    fresh: Vec<&'static mut [u8]>,
}

static POOL: Mutex<Pool> = Mutex::new(Pool { spare: Vec::new(), fresh: Vec::new() });

impl Pool {
    fn buffer(&mut self) -> SocketBuffer<'static> {
        if self.fresh.is_empty() {
            self.fresh.extend(vec![0; SLAB].leak().chunks_exact_mut(BUFFER).rev());
        }
        SocketBuffer::new(self.fresh.pop().expect("a slab holds several buffers"))
    }

    fn take(&mut self) -> (SocketSet<'static>, SocketHandle) {
        if let Some(spare) = self.spare.pop() {
            return spare;
        }
        let mut socket = Socket::new(self.buffer(), self.buffer());
        socket.set_ack_delay(None);
        socket.set_nagle_enabled(false);
        let mut set = SocketSet::new(Vec::with_capacity(1));
        let handle = set.add(socket);
        (set, handle)
    }
}

/// A socket in a set of its own, borrowed from the pool. It is closed when it comes.
pub(crate) struct PooledSocket {
    /// `None` only while being dropped.
    inner: Option<(SocketSet<'static>, SocketHandle)>,
}

impl PooledSocket {
    pub(crate) fn new() -> PooledSocket {
        PooledSocket { inner: Some(POOL.lock().take()) }
    }

    fn inner(&self) -> &(SocketSet<'static>, SocketHandle) {
        self.inner.as_ref().expect("the socket is there until the drop")
    }

    pub(crate) fn set_mut(&mut self) -> &mut SocketSet<'static> {
        &mut self.inner.as_mut().expect("the socket is there until the drop").0
    }

    pub(crate) fn set(&self) -> &SocketSet<'static> {
        &self.inner().0
    }

    pub(crate) fn get(&self) -> &Socket<'static> {
        let (set, handle) = self.inner();
        set.get(*handle)
    }

    pub(crate) fn get_mut(&mut self) -> &mut Socket<'static> {
        let (set, handle) = self.inner.as_mut().expect("the socket is there until the drop");
        set.get_mut(*handle)
    }
}

impl Drop for PooledSocket {
    fn drop(&mut self) {
        // Closed, as listen and connect want it; they reset everything else.
        self.get_mut().abort();
        POOL.lock().spare.extend(self.inner.take());
    }
}
