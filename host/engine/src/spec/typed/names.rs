//! Finds names of members and cases in time that hardly grows with their number: a payload may look up millions.

use std::cmp::Ordering;

/// So few names are looked at one by one.
const FEW: usize = 8;

/// Returns the places of the names in alphabetical order, in which `-` and `_` are one character; nothing for few names.
pub(crate) fn sorted(names: &[&str]) -> Vec<u32> {
    if names.len() <= FEW {
        return Vec::new();
    }
    let mut places: Vec<u32> = (0..names.len() as u32).collect();
    places.sort_by(|one, other| compare(names[*one as usize], names[*other as usize]));
    places
}

/// Returns the place of a name as it is written. `sorted` is the order of all names, of which `at` returns one.
pub(crate) fn find<'n>(
    sorted: &[u32],
    count: usize,
    at: impl Fn(usize) -> &'n str,
    is_it: impl Fn(&str) -> bool,
    name: &str,
) -> Option<usize> {
    if sorted.is_empty() {
        return (0..count).find(|place| is_it(at(*place)));
    }
    let found = sorted.binary_search_by(|place| compare(at(*place as usize), name)).ok()?;
    let place = sorted[found] as usize;
    is_it(at(place)).then_some(place)
}

fn compare(one: &str, other: &str) -> Ordering {
    let spelled = |byte: u8| if byte == b'-' { b'_' } else { byte };
    one.bytes().map(spelled).cmp(other.bytes().map(spelled))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_at_its_place() {
        for count in [1, FEW, FEW + 1, 1000] {
            let all: Vec<String> = (0..count).rev().map(|n| format!("a-name-{n}")).collect();
            let names: Vec<&str> = all.iter().map(String::as_str).collect();
            let order = sorted(&names);
            let place = |name: &str| find(&order, count, |place| names[place], |known| known == name, name);
            for (at, name) in names.iter().enumerate() {
                assert_eq!(place(name), Some(at));
                assert_eq!(place(&name.replace('-', "_")), None);
            }
            assert_eq!((place(""), place("a"), place("b")), (None, None, None));
        }
    }
}
