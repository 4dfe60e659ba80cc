//! Masks the values of secrets in what a plugin receives: each byte of one becomes `*`, so that lengths stay as they were told. What is
//! passed on, and when, depends on no value: else a server that tries one byte after the other would tell the plugin the value.

use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::task::JoinError;
use wharf_core::budget::MemoryUse;

use super::encodings::{Form, forms};
use super::matcher::{Matcher, Place};
use crate::schedule::budget::{Budget, Reservation};
use crate::spec::secret::{SecretGrant, SecretGrants, SecretValue};

/// The number of bytes that are held back is a multiple of this: it tells little of how many characters of a value are escaped.
const HELD_STEP: usize = 64;

/// The masks of a host: plugins whose secrets have the same values share one. Clones refer to the same ones.
#[derive(Clone)]
pub(crate) struct SharedMasks {
    /// Locked only to look for a mask: none is made meanwhile, and no await is inside.
    known: Arc<Mutex<Vec<Weak<SharedMask>>>>,
    budget: Budget,
}

impl SharedMasks {
    pub(crate) fn new(budget: Budget) -> SharedMasks {
        SharedMasks { known: Arc::default(), budget }
    }

    /// Returns the mask of a secret, which may not be made yet.
    fn of(&self, grant: &SecretGrant) -> Arc<SharedMask> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|mask| mask.strong_count() > 0);
        let is_of = |mask: &Arc<SharedMask>| grant.values().eq(&mask.values);
        if let Some(mask) = known.iter().filter_map(Weak::upgrade).find(is_of) {
            return mask;
        }
        let values = grant.values().cloned().collect();
        let mask = Arc::new(SharedMask { values, made: OnceLock::new(), making: Arc::default() });
        known.push(Arc::downgrade(&mask));
        mask
    }
}

/// The mask of some values, made when it is first needed.
struct SharedMask {
    values: Vec<SecretValue>,
    made: OnceLock<Arc<Mask>>,
    /// Locked while the mask is made: those who need it meanwhile wait, and keep no thread.
    making: Arc<tokio::sync::Mutex<()>>,
}

impl SharedMask {
    /// Returns the mask. Making one takes long: a thread for such work does it, and goes on when nobody waits any more.
    async fn made(self: &Arc<Self>, budget: &Budget) -> Result<Arc<Mask>, JoinError> {
        if let Some(mask) = self.made.get() {
            return Ok(Arc::clone(mask));
        }
        let making = Arc::clone(&self.making).lock_owned().await;
        let (shared, budget) = (Arc::clone(self), budget.clone());
        let make = move || {
            let _making = making;
            Arc::clone(shared.made.get_or_init(|| Arc::new(Mask::new(&shared.values, &budget))))
        };
        tokio::task::spawn_blocking(make).await
    }
}

/// The masks of all secrets of one plugin. Each is looked for with the first response that needs it.
pub(crate) struct PluginMasks {
    own: Vec<(SecretGrant, OnceLock<Arc<SharedMask>>)>,
    shared: SharedMasks,
}

impl PluginMasks {
    pub(crate) fn new(secrets: &SecretGrants, shared: &SharedMasks) -> PluginMasks {
        let own = secrets.iter().map(|grant| (grant.clone(), OnceLock::new())).collect();
        PluginMasks { own, shared: shared.clone() }
    }

    /// Returns the masks of a response that comes from this place: those of the secrets that may be sent there. `None` if there are none.
    ///
    /// No other response is masked: who knows which texts are masked could try many.
    ///
    /// # Errors
    /// If the host panicked while it made a mask: then the response must not be passed on.
    pub(crate) async fn of_response(&self, tls: bool, host: &str, port: u16) -> Result<Option<Arc<Masks>>, JoinError> {
        let is_for = |grant: &SecretGrant| tls && grant.is_for(tls, host, port) && grant.values().next().is_some();
        let mut all = Vec::new();
        for (at, (grant, mask)) in self.own.iter().enumerate().filter(|(_, (grant, _))| is_for(grant)) {
            let mask = mask.get_or_init(|| self.shared.of(grant));
            all.push((at, mask.made(&self.shared.budget).await?));
        }
        let held = all.iter().map(|(_, mask)| mask.held).max();
        Ok(held.map(|held| Arc::new(Masks { all, held })))
    }
}

/// The mask of one secret: of its value, and of those that it had before.
struct Mask {
    matcher: Matcher,
    texts: Vec<Text>,
    /// The forms as names of headers have them, which are in lower case.
    names: Vec<String>,
    /// Number of bytes at the end that are held back.
    held: usize,
    /// The bytes of all this.
    _room: Reservation,
}

/// A text of the matcher.
struct Text {
    /// The character before it may have bits of the value.
    has_before: bool,
    /// The character after it may have bits of the value.
    has_after: bool,
}

impl Mask {
    fn new(values: &[SecretValue], budget: &Budget) -> Mask {
        let mut all: Vec<Form> = values.iter().flat_map(|value| forms(value.as_str())).collect();
        all.sort_unstable();
        // Of two that are the same text, the one in base64 is left.
        all.dedup_by(|next, kept| {
            let is_same = next.bytes == kept.bytes;
            kept.is_base64 |= is_same && next.is_base64;
            is_same
        });
        let matcher = Matcher::new(all.iter().map(|form| form.bytes.as_slice()));
        let texts = all.iter().map(|form| Text {
            has_before: form.is_base64,
            // The matcher tells the longest text: shorter ones may end there, too.
            has_after: all.iter().any(|other| other.is_base64 && form.bytes.ends_with(&other.bytes)),
        });
        let texts: Vec<Text> = texts.collect();
        let longest = all.iter().map(|form| form.bytes.len()).max().unwrap_or_default();
        let mut names: Vec<String> = all.iter().filter_map(|form| name(&form.bytes)).collect();
        names.sort_unstable();
        names.dedup();
        let texts_bytes = size_of_val(texts.as_slice()) + size_of_val(names.as_slice());
        let bytes = matcher.bytes() + texts_bytes + names.iter().map(String::len).sum::<usize>();
        // Made by now, and none can be left out: it counts whether there is room or not.
        let room = budget.reserve_anyway(MemoryUse::Attempts, bytes as u64);
        Mask { matcher, texts, names, held: longest.next_multiple_of(HELD_STEP), _room: room }
    }
}

/// Returns a form as the name of a header has it; `None` if no name can have it.
fn name(form: &[u8]) -> Option<String> {
    let name = std::str::from_utf8(form).ok()?.to_ascii_lowercase();
    HeaderName::from_bytes(name.as_bytes()).is_ok().then_some(name)
}

/// The masks of one response.
pub(crate) struct Masks {
    /// Each with the place of its secret in the plugin's list.
    all: Vec<(usize, Arc<Mask>)>,
    /// Number of bytes at the end of what has arrived that are held back, at most: the length of the longest form or more.
    held: usize,
}

impl Masks {
    /// Masks headers, and removes those whose name has a value. Returns the places of the secrets that were found.
    pub(crate) fn headers(&self, headers: &mut HeaderMap) -> Vec<usize> {
        let mut found = Vec::new();
        for (at, mask) in &self.all {
            let is_named = |name: &HeaderName| mask.names.iter().any(|form| name.as_str().contains(form.as_str()));
            let named: Vec<HeaderName> = headers.keys().filter(|name| is_named(name)).cloned().collect();
            for name in named {
                headers.remove(name);
                found.push(*at);
            }
        }
        for value in headers.values_mut() {
            let mut scan = Scan::new(self);
            let mut masked = scan.feed(self, Bytes::copy_from_slice(value.as_bytes())).to_vec();
            masked.extend_from_slice(&scan.finish());
            if !scan.found.is_empty() {
                // The rest is as it was, and `*` may stand anywhere.
                *value = HeaderValue::from_bytes(&masked).unwrap_or(HeaderValue::from_static("*"));
                found.append(&mut scan.found);
            }
        }
        found
    }
}

/// A search through one body.
#[derive(Debug)]
pub(super) struct Scan {
    /// For each mask.
    places: Vec<Place>,
    /// Bytes that may be part of a value that goes on, whatever the value is. All are printable.
    held: BytesMut,
    /// The character after the last match has bits of the value if it is one of base64.
    is_next_masked: bool,
    /// The places of the secrets that were found, each once.
    pub(super) found: Vec<usize>,
}

impl Scan {
    pub(super) fn new(masks: &Masks) -> Scan {
        let places = vec![Place::default(); masks.all.len()];
        Scan { places, held: BytesMut::new(), is_next_masked: false, found: Vec::new() }
    }

    /// Takes the next bytes, and returns those that can be no part of a value that goes on: masked, and in order. How many they are
    /// depends on which bytes are printable, and on the length of the longest form, but on nothing else of the values.
    pub(super) fn feed(&mut self, masks: &Masks, bytes: Bytes) -> Bytes {
        let known = self.held.len();
        // With as much room again: else a server that sends single bytes would have all that is held copied for each.
        if self.held.capacity() - known < bytes.len() {
            self.held.reserve(bytes.len().max(known));
        }
        self.held.extend_from_slice(&bytes);
        let whole = &mut self.held;
        // From and to of what is masked, in order and apart.
        let mut spans: Vec<(usize, usize)> = Vec::new();
        for at in known..whole.len() {
            if std::mem::take(&mut self.is_next_masked) && is_base64(whole[at]) {
                add(&mut spans, at, at + 1);
            }
            for ((secret, mask), place) in masks.all.iter().zip(&mut self.places) {
                *place = mask.matcher.step(*place, whole[at]);
                let Some((text, length)) = mask.matcher.found(*place) else { continue };
                let from = (at + 1).saturating_sub(length);
                let before = mask.texts[text].has_before && from > 0 && is_base64(whole[from - 1]);
                add(&mut spans, if before { from - 1 } else { from }, at + 1);
                self.is_next_masked |= mask.texts[text].has_after;
                if !self.found.contains(secret) {
                    self.found.push(*secret);
                }
            }
        }
        for (from, to) in spans {
            whole[from..to].fill(b'*');
        }
        // No form has a byte that is not printable, such as a line end: what stands before one is complete.
        let printable = bytes.iter().rev().take_while(|byte| (b' '..=b'~').contains(*byte)).count();
        let all = if printable == bytes.len() { known + printable } else { printable };
        let passed = whole.len() - all.min(masks.held);
        if passed == 0 { Bytes::new() } else { whole.split_to(passed).freeze() }
    }

    /// Returns true if nothing is held back.
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Returns what was held back, at the end.
    pub(super) fn finish(&mut self) -> Bytes {
        std::mem::take(&mut self.held).freeze()
    }
}

/// Adds a span that ends no earlier than those before it.
fn add(spans: &mut Vec<(usize, usize)>, mut from: usize, to: usize) {
    while let Some(last) = spans.last().filter(|last| last.1 >= from) {
        from = from.min(last.0);
        spans.pop();
    }
    spans.push((from, to));
}

fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"+/-_".contains(&byte)
}

#[cfg(test)]
mod tests;
