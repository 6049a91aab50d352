//! Tables by keys that the cluster itself hands out, addresses and numbers of identities and rules: nobody outside can choose them so
//! that they collide. So their hash is fast, and the same in every run.

use foldhash::fast::FixedState;

/// A table by such keys.
pub(crate) type Map<K, V> = std::collections::HashMap<K, V, FixedState>;

/// A persistent table by such keys.
pub(crate) type PersistentMap<K, V> = imbl::GenericHashMap<K, V, FixedState, imbl::shared_ptr::DefaultSharedPtr>;
