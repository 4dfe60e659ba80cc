//! Finds many texts at once in bytes that arrive in pieces, in time that is linear in the bytes: the automaton of Aho and Corasick.

/// No node.
const NONE: u32 = u32::MAX;

/// The automaton of some texts, none of which is empty. Node 0 is the root.
#[derive(Debug)]
pub(super) struct Matcher {
    nodes: Vec<Node>,
    /// The nodes below the root, by their byte; 0 where there is none.
    first: Box<[u32; 256]>,
    /// The length of each text.
    lengths: Vec<usize>,
}

#[derive(Debug)]
struct Node {
    byte: u8,
    /// The node of the longest proper end of these bytes that some text begins with.
    shorter: u32,
    child: u32,
    sibling: u32,
    /// The longest text that ends here.
    text: u32,
}

/// A place in the automaton: what of the bytes so far may be the beginning of a text.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Place(u32);

impl Matcher {
    pub(super) fn new<'t>(texts: impl IntoIterator<Item = &'t [u8]>) -> Matcher {
        let root = Node { byte: 0, shorter: 0, child: NONE, sibling: NONE, text: NONE };
        let mut matcher = Matcher { nodes: vec![root], first: Box::new([0; 256]), lengths: Vec::new() };
        for text in texts {
            let mut node = 0;
            for byte in text {
                node = matcher.child(node, *byte).unwrap_or_else(|| matcher.add(node, *byte));
            }
            matcher.nodes[node as usize].text = matcher.lengths.len() as u32;
            matcher.lengths.push(text.len());
        }
        matcher.link();
        matcher.nodes.shrink_to_fit();
        matcher
    }

    /// Returns the number of bytes that it takes.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(self.nodes.as_slice()) + size_of_val(self.first.as_slice()) + size_of_val(self.lengths.as_slice())
    }

    fn add(&mut self, parent: u32, byte: u8) -> u32 {
        let new = self.nodes.len() as u32;
        let above = &mut self.nodes[parent as usize];
        let sibling = std::mem::replace(&mut above.child, new);
        self.nodes.push(Node { byte, shorter: 0, child: NONE, sibling, text: NONE });
        if parent == 0 {
            self.first[usize::from(byte)] = new;
        }
        new
    }

    fn child(&self, node: u32, byte: u8) -> Option<u32> {
        if node == 0 {
            return Some(self.first[usize::from(byte)]).filter(|child| *child != 0);
        }
        let mut child = self.nodes[node as usize].child;
        while child != NONE && self.nodes[child as usize].byte != byte {
            child = self.nodes[child as usize].sibling;
        }
        Some(child).filter(|child| *child != NONE)
    }

    /// Finds for each node the longest end that is a beginning: those of shorter nodes first.
    fn link(&mut self) {
        let mut queue = std::collections::VecDeque::from([0]);
        while let Some(node) = queue.pop_front() {
            let mut child = self.nodes[node as usize].child;
            while child != NONE {
                queue.push_back(child);
                let byte = self.nodes[child as usize].byte;
                let shorter = if node == 0 { 0 } else { self.step(Place(self.nodes[node as usize].shorter), byte).0 };
                let inherited = self.nodes[shorter as usize].text;
                let this = &mut self.nodes[child as usize];
                this.shorter = shorter;
                if this.text == NONE {
                    this.text = inherited;
                }
                child = this.sibling;
            }
        }
    }

    /// Returns the place after one more byte.
    pub(super) fn step(&self, Place(mut node): Place, byte: u8) -> Place {
        loop {
            if let Some(child) = self.child(node, byte) {
                return Place(child);
            }
            if node == 0 {
                return Place(0);
            }
            node = self.nodes[node as usize].shorter;
        }
    }

    /// Returns the number and the length of the longest text that ends at this place.
    pub(super) fn found(&self, Place(node): Place) -> Option<(usize, usize)> {
        let text = self.nodes[node as usize].text as usize;
        self.lengths.get(text).map(|length| (text, *length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the end and the text of the longest match at each place.
    fn matches(texts: &[&str], bytes: &str) -> Vec<(usize, usize)> {
        let matcher = Matcher::new(texts.iter().map(|text| text.as_bytes()));
        let mut place = Place::default();
        let mut found = Vec::new();
        for (at, byte) in bytes.bytes().enumerate() {
            place = matcher.step(place, byte);
            found.extend(matcher.found(place).map(|(text, _)| (at + 1, text)));
        }
        found
    }

    #[test]
    fn texts_are_found_wherever_they_stand_and_overlap() {
        assert_eq!(matches(&["abcd", "bc", "cdab"], "xabcdabx"), [(4, 1), (5, 0), (7, 2)]);
        assert_eq!(matches(&["aab"], "aaab"), [(4, 0)]);
        assert_eq!(matches(&["aa"], "aaaa"), [(2, 0), (3, 0), (4, 0)]);
        assert_eq!(matches(&["secret"], "sesecresecret"), [(13, 0)]);
        assert_eq!(matches(&[], "anything"), []);
    }

    #[test]
    fn random_texts_are_found_as_a_slow_search_finds_them() {
        for seed in 0..500 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut text = |length| (0..length).map(|_| random.char('a'..='c')).collect::<String>();
            let texts: Vec<String> = (1..5).map(&mut text).collect();
            let bytes = text(60);
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            let longest = |end: usize| {
                let ends = texts.iter().enumerate().filter(|(_, text)| bytes[..end].ends_with(**text));
                ends.max_by_key(|(_, text)| text.len()).map(|(_, text)| text.len())
            };
            let slow: Vec<(usize, usize)> = (1..=bytes.len()).filter_map(|end| Some((end, longest(end)?))).collect();
            let fast: Vec<(usize, usize)> =
                matches(&texts, &bytes).into_iter().map(|(end, text)| (end, texts[text].len())).collect();
            assert_eq!(fast, slow, "seed {seed}: {texts:?} in {bytes}");
        }
    }
}
