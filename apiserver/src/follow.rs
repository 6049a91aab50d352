//! A view of a part of the store that follows it: read once, kept up by watches, swapped whole.
//!
//! For what a request must look up without reading the store: roles and bindings, which pods use which secrets, flow schemas.
//! [`Follower::view`] costs a load of a pointer; [`Follower::catch_up`] waits until the view shows every write that was answered
//! before the call.

use arc_swap::{ArcSwap, Guard};
use futures::{FutureExt, StreamExt};
use std::sync::Arc;
use store::{EventKind, Range, Revision, Store};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What is kept of the objects, and how readers see it.
pub(crate) trait Fold: Send + 'static {
    /// What readers see.
    type View: Send + Sync + 'static;

    /// Takes in what stands under `key` now; `None` if it is gone.
    fn put(&mut self, key: &str, value: Option<&[u8]>);

    /// Forgets everything, before it is read anew.
    fn clear(&mut self);

    /// The view of what has been taken in.
    fn view(&mut self) -> Self::View;
}

/// A running view; ends with its last handle.
pub(crate) struct Follower<V> {
    store: Arc<dyn Store>,
    view: Arc<ArcSwap<V>>,
    applied: watch::Receiver<Revision>,
    changed: watch::Receiver<()>,
    task: JoinHandle<()>,
}

impl<V> Drop for Follower<V> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl<V: Send + Sync + 'static> Follower<V> {
    /// Reads everything under `prefixes` and follows its changes.
    pub(crate) async fn start<F: Fold<View = V>>(
        store: Arc<dyn Store>,
        prefixes: &'static [&'static str],
        mut fold: F,
    ) -> Self {
        let revision = load(&*store, prefixes, &mut fold).await;
        let view = Arc::new(ArcSwap::from_pointee(fold.view()));
        let (sender, applied) = watch::channel(revision);
        let (change, changed) = watch::channel(());
        let published = Published { view: view.clone(), applied: sender, change };
        let task = tokio::spawn(follow(store.clone(), prefixes, fold, revision, published));
        Follower { store, view, applied, changed, task }
    }

    /// What is known now.
    pub(crate) fn view(&self) -> Guard<Arc<V>> {
        self.view.load()
    }

    /// Told whenever there is a new view.
    pub(crate) fn view_changes(&self) -> watch::Receiver<()> {
        self.changed.clone()
    }

    /// Waits until the view has followed the store to where it is now.
    pub(crate) async fn catch_up(&self) {
        let newest = self.store.revision();
        let mut applied = self.applied.clone();
        if *applied.borrow() < newest {
            self.store.request_progress();
            let _ = applied.wait_for(|revision| *revision >= newest).await;
        }
    }
}

/// Where readers see what has been followed.
struct Published<V> {
    view: Arc<ArcSwap<V>>,
    applied: watch::Sender<Revision>,
    change: watch::Sender<()>,
}

impl<V> Published<V> {
    fn view(&self, view: V) {
        self.view.store(Arc::new(view));
        self.change.send_replace(());
    }
}

async fn load<F: Fold>(store: &dyn Store, prefixes: &[&str], fold: &mut F) -> Revision {
    loop {
        fold.clear();
        let at = store.revision();
        let mut complete = true;
        for prefix in prefixes {
            let range = Range { prefix: (*prefix).to_owned(), at: Some(at), ..Range::default() };
            match store.range(range).await {
                Ok(page) => page.items.iter().for_each(|item| fold.put(&item.key, Some(&item.value))),
                // The snapshot has been compacted meanwhile: begin anew.
                Err(_) => complete = false,
            }
        }
        if complete {
            return at;
        }
        tokio::task::yield_now().await;
    }
}

async fn follow<F: Fold>(
    store: Arc<dyn Store>,
    prefixes: &[&str],
    mut fold: F,
    mut revision: Revision,
    published: Published<F::View>,
) {
    loop {
        let mut watches: Vec<_> = prefixes.iter().map(|prefix| store.watch(prefix, revision)).collect();
        let mut reached = vec![revision; prefixes.len()];
        'watching: loop {
            let mut changed = false;
            let mut next = Some(futures::future::select_all(watches.iter_mut().map(StreamExt::next)).await);
            // Everything that is there already goes into one new view.
            while let Some((batch, index, _)) = next {
                // The store has been closed: there will be nothing more to follow.
                let Some(batch) = batch else { return };
                let Ok(batch) = batch else { break 'watching };
                for event in &batch.events {
                    let value = (event.kind == EventKind::Put).then_some(&*event.kv.value);
                    fold.put(&event.kv.key, value);
                }
                changed |= !batch.events.is_empty();
                reached[index] = reached[index].max(batch.revision);
                next = futures::future::select_all(watches.iter_mut().map(StreamExt::next)).now_or_never();
            }
            if changed {
                published.view(fold.view());
            }
            published.applied.send_replace(reached.iter().copied().min().unwrap_or_default());
        }
        revision = load(&*store, prefixes, &mut fold).await;
        published.view(fold.view());
        published.applied.send_replace(revision);
    }
}
