//! Places in lists that a client goes on from and cannot read. A list that was looked through ends at a job of anybody, whose ID and moments
//! are none of the business of a client that is bound to a key.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;
use wharf_core::find::JobCursor;
use wharf_core::ids::JobId;
use wharf_core::time::Timestamp;

/// The secret that seals places. All hosts of a store have the same one.
pub(crate) type SealKey = [u8; 32];

/// The bytes of a place: an ID and a moment, which may be missing.
type Place = [u8; 16];

/// Stands for a moment that is missing.
const NO_MOMENT: u64 = u64::MAX;

fn mac(key: &SealKey, purpose: &str, bytes: &Place) -> Place {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key may have any length");
    mac.update(purpose.as_bytes());
    mac.update(bytes);
    let whole: [u8; 32] = mac.finalize().into_bytes().into();
    std::array::from_fn(|at| whole[at])
}

fn xor(one: Place, other: Place) -> Place {
    std::array::from_fn(|at| one[at] ^ other[at])
}

/// Returns a place as a text that only hosts of the store can read: a checksum, which says that it was made by one of them, and the place
/// under a stream that follows from the checksum.
pub(crate) fn seal(key: &SealKey, place: &JobCursor) -> String {
    let moment = place.finished_at.map_or(NO_MOMENT, Timestamp::as_micros);
    let both = (u128::from(place.id.number()) << 64 | u128::from(moment)).to_be_bytes();
    let sum = mac(key, "sum", &both);
    let hidden = xor(both, mac(key, "stream", &sum));
    sum.iter().chain(&hidden).map(|byte| format!("{byte:02x}")).collect()
}

/// Returns the place that was sealed; `None` if the text is none that a host of the store has sealed.
pub(crate) fn open(key: &SealKey, text: &str) -> Option<JobCursor> {
    if text.len() != 64 || !text.bytes().all(|c| c.is_ascii_hexdigit()) {
        return None;
    }
    let part = |from: usize| Some(u128::from_str_radix(&text[from..from + 32], 16).ok()?.to_be_bytes());
    let (sum, hidden) = (part(0)?, part(32)?);
    let both = xor(hidden, mac(key, "stream", &sum));
    if !bool::from(mac(key, "sum", &both).ct_eq(&sum)) {
        return None;
    }
    let both = u128::from_be_bytes(both);
    let (id, moment) = ((both >> 64) as u64, both as u64);
    let finished_at = (moment != NO_MOMENT).then(|| Timestamp::from_micros(moment));
    Some(JobCursor { id: JobId::from_number(id)?, finished_at })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: SealKey = [7; 32];

    fn place(id: u64, finished: Option<u64>) -> JobCursor {
        JobCursor { id: JobId::from_number(id).unwrap(), finished_at: finished.map(Timestamp::from_micros) }
    }

    #[test]
    fn a_place_is_read_by_who_has_the_key_and_by_nobody_else() {
        for place in [place(1, None), place(0x0123_4567_89ab_cdef, Some(1_900_000_000_000_000)), place(9, Some(0))] {
            let sealed = seal(&KEY, &place);
            assert_eq!(open(&KEY, &sealed), Some(place));
            assert_eq!(open(&[8; 32], &sealed), None);
            assert!(!sealed.contains(&format!("{:016x}", place.id.number())), "{sealed}");
            let mut other = sealed.clone().into_bytes();
            for at in 0..other.len() {
                let before = other[at];
                other[at] = if before == b'0' { b'1' } else { b'0' };
                assert_eq!(open(&KEY, std::str::from_utf8(&other).unwrap()), None, "{at}");
                other[at] = before;
            }
        }
        // Neighbours have nothing in common.
        assert_ne!(seal(&KEY, &place(8, None))[..8], seal(&KEY, &place(9, None))[..8]);
        for text in ["", "0s9y115fm0000", &"0".repeat(64), &"é".repeat(32)] {
            assert_eq!(open(&KEY, text), None, "{text}");
        }
    }
}
