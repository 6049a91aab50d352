//! Scalars with a grammar of their own: quantities, times, durations.

use apiserver::schema::quantity::Quantity;

/// A quantity: its canonical form is read as the same amount, and is canonical.
pub(crate) fn quantity(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Some(read) = Quantity::parse(text) else { return };
    let canonical = read.canonical();
    let again = Quantity::parse(&canonical).unwrap_or_else(|| panic!("{text:?} becomes {canonical:?}, which is none"));
    assert_eq!(again.nanos(), read.nanos(), "{text:?} becomes {canonical:?}");
    assert_eq!(again.canonical(), canonical, "{text:?}");
    // A sign, nineteen digits before the point, nine after it, and `e-9`.
    assert!(canonical.len() <= text.len().max(32), "{text:?} becomes {canonical:?}");
}
