//! A request as nearly all of them are, read in place: one question of class IN, perhaps with EDNS0.
//!
//! Whatever is of another form is [`crate::wire`]'s to read, and to refuse.

/// RFC 1035 4.1.1.
const HEADER: usize = 12;
/// RFC 1035 2.3.4: a name on the wire, and so the labels in it.
const MAX_NAME: usize = 255;
const MAX_LABELS: usize = 127;
const CLASS_IN: u16 = 1;
const OPT: u16 = 41;
/// RFC 7873. The one option that ordinary clients send; it is not answered.
const COOKIE: u16 = 10;

/// A request whose form is checked.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    bytes: &'a [u8],
    /// The name in lower case, as on the wire.
    name: [u8; MAX_NAME],
    /// Where its labels begin.
    labels: [u8; MAX_LABELS],
    count: usize,
    length: usize,
    /// The type that is asked for.
    pub(crate) kind: u16,
    /// EDNS0, if the asker knows it.
    pub(crate) edns: Option<Edns>,
}

/// What a request's OPT record says (RFC 6891 6.1).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Edns {
    pub(crate) payload: u16,
    pub(crate) dnssec_ok: bool,
}

impl<'a> Request<'a> {
    /// `None`: it is of no usual form.
    pub(crate) fn read(bytes: &'a [u8]) -> Option<Request<'a>> {
        let [_, _, flags, _, counts @ ..] = bytes.first_chunk::<HEADER>()?;
        // No response, the operation QUERY, not truncated; one question, nothing else but EDNS0.
        let usual = flags & 0b1111_1010 == 0 && counts[..7] == [0, 1, 0, 0, 0, 0, 0] && counts[7] <= 1;
        if !usual {
            return None;
        }
        let mut request =
            Request { bytes, name: [0; MAX_NAME], labels: [0; MAX_LABELS], count: 0, length: 0, kind: 0, edns: None };
        let mut at = HEADER;
        loop {
            let label = usize::from(*bytes.get(at)?);
            let start = at - HEADER;
            if label == 0 {
                request.length = start + 1;
                break;
            }
            // A pointer, or a name that is too long with the root after it.
            if label > 63 || start + label + 2 > MAX_NAME {
                return None;
            }
            *request.labels.get_mut(request.count)? = u8::try_from(start).ok()?;
            request.count += 1;
            let lower = &mut request.name[start..=start + label];
            lower.copy_from_slice(bytes.get(at..=at + label)?);
            // The length is no letter: it is less than 64.
            lower.make_ascii_lowercase();
            at += label + 1;
        }
        let number = |at: usize| Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]));
        request.kind = number(at + 1)?;
        if number(at + 3)? != CLASS_IN {
            return None;
        }
        at += 5;
        if counts[7] == 1 {
            let [root, _, _, _, _, code, version, flags, _, _, _] = bytes.get(at..)?.first_chunk::<11>()?;
            if *root != 0 || number(at + 1)? != OPT || *code != 0 || *version != 0 {
                return None;
            }
            request.edns = Some(Edns { payload: number(at + 3)?, dnssec_ok: flags & 0x80 != 0 });
            let end = at + 11 + usize::from(number(at + 9)?);
            at += 11;
            while at < end {
                if number(at)? != COOKIE {
                    return None;
                }
                at += 4 + usize::from(number(at + 2)?);
            }
            if at != end {
                return None;
            }
        }
        (at == bytes.len()).then_some(request)
    }

    /// The name in lower case, as on the wire.
    pub(crate) fn name(&self) -> &[u8] {
        &self.name[..self.length]
    }

    /// The name's labels; the root is none.
    pub(crate) fn label_count(&self) -> usize {
        self.count
    }

    /// Where a label begins in the name; after the last one, the root.
    pub(crate) fn label_start(&self, index: usize) -> usize {
        if index < self.count { usize::from(self.labels[index]) } else { self.length - 1 }
    }

    /// A label in lower case.
    pub(crate) fn label(&self, index: usize) -> &[u8] {
        &self.name[self.label_start(index) + 1..self.label_start(index + 1)]
    }

    /// The question as it was asked: name, type and class.
    pub(crate) fn question(&self) -> &'a [u8] {
        &self.bytes[HEADER..HEADER + self.length + 4]
    }

    /// The header's first four bytes: the id and the flags.
    pub(crate) fn id_and_flags(&self) -> [u8; 4] {
        [self.bytes[0], self.bytes[1], self.bytes[2], self.bytes[3]]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(name: &[u8], after: &[u8]) -> Vec<u8> {
        [&[0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0][..], name, &[0, 1, 0, 1], after].concat()
    }

    #[test]
    fn a_usual_request_is_read_with_its_name_in_lower_case() {
        let bytes = request(b"\x03WeB\x02A1\0", b"");
        let read = Request::read(&bytes).unwrap();
        assert_eq!((read.name(), read.label_count(), read.kind), (&b"\x03web\x02a1\0"[..], 2, 1));
        assert_eq!((read.label(0), read.label(1)), (&b"web"[..], &b"a1"[..]));
        assert_eq!(read.question(), b"\x03WeB\x02A1\0\0\x01\0\x01");
        let root = request(b"\0", b"");
        assert_eq!(Request::read(&root).unwrap().label_count(), 0);
    }

    #[test]
    fn what_is_not_usual_is_left_to_others() {
        let bytes = request(b"\x03web\0", b"");
        for end in 0..bytes.len() {
            assert!(Request::read(&bytes[..end]).is_none(), "{end}");
        }
        for (at, byte) in [(2, 0x81), (2, 0x09), (2, 3), (5, 2), (5, 0), (7, 1), (9, 1), (11, 1), (12, 0xC0), (20, 3)] {
            let mut other = bytes.clone();
            other[at] = byte;
            assert!(Request::read(&other).is_none(), "{at}");
        }
        assert!(Request::read(&request(b"\x03web\0", b"\0")).is_none());
        let long = [&[63; 64][..], &[63; 64], &[63; 64], &[61; 62], b"\0"].concat();
        assert_eq!(long.len(), 255);
        assert!(Request::read(&request(&long, b"")).is_some());
        let longer = [&[63; 64][..], &[63; 64], &[63; 64], &[62; 63], b"\0"].concat();
        assert!(Request::read(&request(&longer, b"")).is_none());
    }

    #[test]
    fn edns_is_read_and_of_its_options_only_cookies() {
        let opt = |options: &[u8]| {
            let length = u16::try_from(options.len()).unwrap().to_be_bytes();
            let mut bytes = request(b"\0", &[&[0, 0, 41, 4, 208, 0, 0, 0x80, 0][..], &length, options].concat());
            bytes[11] = 1;
            bytes
        };
        let bytes = opt(b"");
        let edns = Request::read(&bytes).unwrap().edns.unwrap();
        assert_eq!((edns.payload, edns.dnssec_ok), (1232, true));
        assert!(Request::read(&opt(b"\0\x0a\0\x02ab")).is_some());
        for bad in [&b"\0\x0a\0\x03ab"[..], b"\0\x0a\0\x01ab", b"\0\x08\0\0", b"\0"] {
            assert!(Request::read(&opt(bad)).is_none(), "{}", bad.escape_ascii());
        }
    }
}
