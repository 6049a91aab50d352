//! A TUN device of the operating system as a port of the network: what its kernel routes there enters the switch, and back.
//!
//! Its kernel computes checksums and cuts TCP segments as hardware would (`IFF_VNET_HDR` with TSO), so that packets of up to 64 KiB cross
//! in one system call. A kernel that refuses sends whole packets of at most its MTU, which is right too, and slower. Linux only; making
//! a device needs `CAP_NET_ADMIN`.

use crate::packet::LARGEST;
use crate::{AttachError, Network, PortTag, RawPort, vnet};
use rustix::ioctl::{IntegerSetter, ioctl, opcode};
use std::io;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Handle;
use tun::{AbstractDevice, Configuration, Device};

/// A device that exists as long as this value.
pub struct TunDevice {
    /// `None` only while being dropped.
    device: Option<AsyncFd<Device>>,
    name: String,
}

/// The kernel may leave checksums out, and TCP segments of IPv4 and IPv6 whole (`TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6`).
const OFFLOADS: usize = 1 | 2 | 4;
/// `TUNSETOFFLOAD`
const SET_OFFLOADS: rustix::ioctl::Opcode = opcode::write::<std::ffi::c_uint>(b'T', 208);

impl std::fmt::Debug for TunDevice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TunDevice").field("name", &self.name).finish_non_exhaustive()
    }
}

impl TunDevice {
    /// Makes a device, without addresses and down. `%d` in the name stands for the first free number.
    ///
    /// # Errors
    /// What the kernel says: no `/dev/net/tun`, no right to make one, a name that is taken or too long.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn create(name: &str) -> io::Result<TunDevice> {
        let mut configuration = Configuration::default();
        configuration.tun_name(name);
        // Addresses, state and routes are not this module's.
        configuration.platform_config(|platform| {
            platform.ensure_root_privileges(false).vnet_hdr(true);
        });
        let device = tun::create(&configuration).map_err(io::Error::from)?;
        device.set_nonblock()?;
        // SAFETY: the descriptor is open for the call, and TUNSETOFFLOAD takes its argument by value.
        #[allow(unsafe_code, reason = "no library has this ioctl")]
        let set = unsafe {
            let descriptor = std::os::fd::BorrowedFd::borrow_raw(std::os::fd::AsRawFd::as_raw_fd(&device));
            ioctl(descriptor, IntegerSetter::<SET_OFFLOADS>::new_usize(OFFLOADS))
        };
        if let Err(error) = set {
            tracing::info!(%error, "the kernel offloads nothing to the TUN device");
        }
        let name = device.tun_name().map_err(io::Error::from)?;
        // SAFETY: the device owns its descriptor, says the same one each time, and keeps it open until it is dropped, which the
        // `AsyncFd` around it outlives.
        #[allow(unsafe_code, reason = "the device does not implement `AsFd`")]
        let device = unsafe { AsyncFd::register(device) }?;
        Ok(TunDevice { device: Some(device), name })
    }

    /// As the kernel calls it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A port of the network for this device.
    ///
    /// # Errors
    /// As [`Network::attach_raw`].
    pub fn attach(
        &self,
        network: &Network,
        addresses: &[std::net::IpAddr],
        tag: PortTag,
    ) -> Result<RawPort, AttachError> {
        network.attach_offloading(addresses, tag)
    }

    /// Carries packets both ways, by the port from [`TunDevice::attach`], until the network stops or the device fails.
    ///
    /// # Errors
    /// The device cannot be read any more: somebody has deleted it.
    pub async fn run(self, mut port: RawPort) -> io::Result<()> {
        let Some(device) = &self.device else { return Ok(()) };
        let sender = port.sender();
        let inwards = async {
            let mut buffer = vec![0; vnet::LENGTH + LARGEST];
            loop {
                let mut ready = device.readable().await?;
                // All that is there, before the runtime is asked again.
                while let Ok(received) = ready.try_io(|device| device.get_ref().recv(&mut buffer)) {
                    sender.send(&buffer[..received?]);
                }
            }
        };
        let outwards = async {
            while let Some(packet) = port.recv().await {
                loop {
                    match device.writable().await?.try_io(|device| device.get_ref().send(&packet)) {
                        // A packet that the kernel does not take (its device is down) is lost, as on a wire.
                        Ok(_) => break,
                        Err(_would_block) => {}
                    }
                }
            }
            Ok(())
        };
        tokio::select! {
            failed = inwards => failed,
            ended = outwards => ended,
        }
    }
}

impl Drop for TunDevice {
    fn drop(&mut self) {
        // Closing waits for the kernel's network to forget the device, 15 to 34 ms: not on a worker.
        let device = self.device.take();
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(move || drop(device))),
            Err(_) => drop(device),
        }
    }
}
