use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, Wake, Waker};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use futures_util::FutureExt as _;
use hyper::body::{Body, Frame};
use tokio::runtime::Runtime;

use super::*;
use crate::sandbox::secrets::masked_body::MaskedBody;
use crate::spec::grants::PluginSettings;
use crate::spec::secret::{Secret, SecretValue};

const VALUE: &str = "sk_live/7f\"3+a&~9?";

/// The place that secrets may be sent to.
const HOST: &str = "api.example.com";

fn grants(values: &[&str], earlier: &[&str]) -> SecretGrants {
    let names: Vec<String> = (0..values.len()).map(|at| format!("'s{at}'")).collect();
    let mut settings: PluginSettings =
        crate::spec::toml_diagnostics::read(&format!("secrets = [{}]", names.join(", "))).unwrap();
    settings.secrets.resolve(|name| {
        let value = Ok(SecretValue::of(values[name.as_str()[1..].parse::<usize>().unwrap()]).unwrap());
        let earlier = earlier.iter().map(|value| SecretValue::of(value).unwrap()).collect();
        Some(Arc::new(Secret { hosts: vec![HOST.parse().unwrap()], value, earlier }))
    });
    settings.secrets
}

/// The runtime of the budgets, and of the threads that make masks.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());

/// The masks of a host, and its budget.
fn host() -> (SharedMasks, Budget) {
    let _inside = RUNTIME.enter();
    let budget = Budget::new(1 << 30);
    (SharedMasks::new(budget.clone()), budget)
}

fn plugin(values: &[&str], earlier: &[&str]) -> PluginMasks {
    PluginMasks::new(&grants(values, earlier), &host().0)
}

fn response(of: &PluginMasks, tls: bool, host: &str, port: u16) -> Option<Arc<Masks>> {
    RUNTIME.block_on(of.of_response(tls, host, port)).unwrap()
}

fn masks(values: &[&str]) -> Arc<Masks> {
    response(&plugin(values, &[]), true, HOST, 443).unwrap()
}

/// Masks a text that arrives in pieces of these lengths, one after the other and again.
fn masked(masks: &Masks, text: &[u8], lengths: &[usize]) -> Vec<u8> {
    let (mut scan, mut out, mut at) = (Scan::new(masks), Vec::new(), 0);
    for length in lengths.iter().cycle() {
        let to = (at + length).min(text.len());
        out.extend_from_slice(&scan.feed(masks, Bytes::copy_from_slice(&text[at..to])));
        at = to;
        if at == text.len() {
            break;
        }
    }
    out.extend_from_slice(&scan.finish());
    assert_eq!(out.len(), text.len());
    out
}

#[test]
fn every_form_is_masked_however_it_is_split() {
    let masks = masks(&[VALUE]);
    let hex = |upper: bool| {
        VALUE.bytes().map(|b| if upper { format!("{b:02X}") } else { format!("{b:02x}") }).collect::<String>()
    };
    let percent = |encoded: &str| -> String {
        let one = |c: char| if encoded.contains(c) { format!("%{:02X}", c as u32) } else { c.to_string() };
        VALUE.chars().map(one).collect()
    };
    let mut forms = vec![
        VALUE.to_owned(),
        serde_json::to_string(VALUE).unwrap().trim_matches('"').to_owned(),
        // PHP.
        VALUE.replace('/', "\\/").replace('"', "\\\""),
        // Go.
        VALUE.replace('"', "\\\"").replace('&', "\\u0026"),
        // System.Text.Json.
        VALUE.replace('"', "\\u0022").replace('&', "\\u0026").replace('+', "\\u002B"),
        VALUE.replace('&', "&amp;").replace('"', "&quot;"),
        // Go, its templates, and ASP.NET.
        VALUE.replace('&', "&amp;").replace('"', "&#34;"),
        VALUE.replace('&', "&amp;").replace('"', "&#34;").replace('+', "&#43;"),
        VALUE.replace('&', "&amp;").replace('"', "&quot;").replace('+', "&#x2B;"),
        percent("/\"+&?"),
        percent("/\"+&~?"),
        VALUE.bytes().map(|b| format!("%{b:02x}")).collect(),
        hex(false),
        hex(true),
    ];
    for before in ["", "u", "us", "user:", "user12:"] {
        for text in [format!("{before}{VALUE}"), format!("{before}{VALUE}x"), format!("{before}{VALUE}xy")] {
            let basic = STANDARD.encode(&text);
            forms.extend([STANDARD.encode(format!("Basic {basic}")), URL_SAFE.encode(&basic)]);
            forms.extend(basic.bytes().map(|b| format!("{b:02x}")).reduce(|text, more| text + &more));
            // PHP, System.Text.Json, and pages.
            forms.extend([basic.replace('/', "\\/"), basic.replace('+', "\\u002B")]);
            forms.extend([basic.replace('/', "&#x2F;"), basic.replace('+', "&#x2B;")]);
            forms.extend([basic, URL_SAFE.encode(&text)]);
        }
    }
    for form in forms {
        let text = format!("{{\"echo\": \"{form}\"}}, and {form}: end");
        for length in [1, 2, 3, 7, 16, 1000] {
            let masked = String::from_utf8(masked(&masks, text.as_bytes(), &[length])).unwrap();
            assert!(masked.starts_with("{\"echo\": \""), "{masked}");
            assert!(masked.ends_with(": end"), "{masked}");
            assert!(!masked.contains(VALUE) && masked.matches('*').count() >= 2 * VALUE.len(), "{form}: {masked}");
            // Of base64, the bytes around it may be left.
            let middle = &form.as_bytes()[form.len() / 2 - 4..form.len() / 2 + 4];
            assert!(!masked.contains(std::str::from_utf8(middle).unwrap()), "{form}: {masked}");
        }
    }
}

#[test]
fn other_text_stays_and_lines_go_on_at_once() {
    let masks = &self::masks(&[VALUE, "another-value"]);
    let mut scan = Scan::new(masks);
    assert_eq!(scan.feed(masks, Bytes::from_static(b"data: {\"a\": 1}\n\n")), "data: {\"a\": 1}\n\n");
    assert_eq!(scan.feed(masks, Bytes::from_static(b"sk_live/7")), "");
    assert_eq!(scan.feed(masks, Bytes::from_static(b" is none\nmore")), "sk_live/7 is none\n");
    assert_eq!(scan.finish(), "more");
    assert!(scan.found.is_empty());
    for seed in 0..200 {
        let mut random = fastrand::Rng::with_seed(seed);
        let pieces = ["sk_live", "/7f", "another", "-value", VALUE, "another-value", "x", "%73", "c2tf"];
        let text: String = (0..30).map(|_| pieces[random.usize(..pieces.len())]).collect();
        let lengths: Vec<usize> = (0..5).map(|_| random.usize(1..20)).collect();
        let split = masked(masks, text.as_bytes(), &lengths);
        let expected = [VALUE, "another-value"]
            .iter()
            .fold(text.clone(), |text, value| text.replace(value, &"*".repeat(value.len())));
        assert_eq!(String::from_utf8(split).unwrap(), expected, "seed {seed}: {text} in {lengths:?}");
    }
}

#[test]
fn headers_are_masked_too() {
    let masks = masks(&["abcdefgh-12", VALUE]);
    let mut headers = HeaderMap::new();
    headers.insert("x-abcdefgh-12", HeaderValue::from_static("1"));
    headers.insert("x-6162636465666768-hex", HeaderValue::from_static("1"));
    headers.insert("x-61626364656667682d3132", HeaderValue::from_static("1"));
    headers.insert("location", HeaderValue::from_static("/to?key=abcdefgh-12&more"));
    headers.append("x-many", HeaderValue::from_static("plain"));
    headers.append("x-many", HeaderValue::from_str(&STANDARD.encode("user:abcdefgh-12")).unwrap());
    assert_eq!(masks.headers(&mut headers), [0, 0, 0, 0]);
    assert_eq!(headers.len(), 4);
    assert!(headers.contains_key("x-6162636465666768-hex"), "a part of a value is none");
    assert_eq!(headers["location"], "/to?key=***********&more");
    let many: Vec<_> = headers.get_all("x-many").iter().collect();
    assert_eq!(many[0], "plain");
    assert!(many[1].to_str().unwrap().contains("************"), "{many:?}");
}

/// A server that sends what is known of a value, and one byte after the other, learns from no length which one is right.
#[test]
fn what_is_passed_on_tells_nothing_of_the_value() {
    let masks = &self::masks(&[VALUE]);
    let forms = [VALUE.to_owned(), STANDARD.encode(VALUE), STANDARD.encode(format!("user:{VALUE}"))];
    for form in &forms {
        for known in 0..form.len() {
            let lengths = |before: &str| {
                let length = |next: u8| {
                    let mut scan = Scan::new(masks);
                    let text = [before.as_bytes(), &form.as_bytes()[..known], &[next]].concat();
                    (scan.feed(masks, Bytes::from(text)).len(), scan.held.len())
                };
                let first = length(b' ');
                assert!((b' '..=b'~').all(|next| length(next) == first), "{}", &form[..known]);
            };
            lengths("");
            lengths(&"x".repeat(1000));
        }
    }
    // Another value of the same characters passes on the same lengths, whatever arrives.
    let turned: String = VALUE.chars().rev().collect();
    let other = &self::masks(&[&turned]);
    assert_eq!(masks.held, other.held);
    for seed in 0..200 {
        let mut random = fastrand::Rng::with_seed(seed);
        let pieces = ["sk_live", "/7f", VALUE, &turned[..5], "x", "\n", "\0", "%73", "c2tf", "é"];
        let (mut scan, mut blind) = (Scan::new(masks), Scan::new(other));
        for _ in 0..50 {
            let piece = Bytes::copy_from_slice(pieces[random.usize(..pieces.len())].as_bytes());
            let lengths = (scan.feed(masks, piece.clone()).len(), blind.feed(other, piece).len());
            assert_eq!(lengths.0, lengths.1, "seed {seed}");
        }
    }
}

#[test]
fn only_responses_of_the_hosts_of_a_secret_are_masked() {
    let of = plugin(&[VALUE], &[]);
    assert!(response(&of, true, HOST, 443).is_some());
    for (tls, host, port) in [(false, HOST, 443), (true, HOST, 8443), (true, "else.example", 443)] {
        assert!(response(&of, tls, host, port).is_none(), "{tls} {host}:{port}");
    }
}

#[test]
fn values_that_were_replaced_are_masked_too() {
    let of = plugin(&["value-three"], &["value-two", "value-one"]);
    let masks = response(&of, true, HOST, 443).unwrap();
    let text = format!("value-one value-two value-three {}", STANDARD.encode("value-one"));
    let masked = String::from_utf8(masked(&masks, text.as_bytes(), &[5])).unwrap();
    assert!(masked.starts_with("********* ********* *********** *********"), "{masked}");
}

/// Characters of base64 beside a value have bits of it, wherever a piece ends.
#[test]
fn what_stands_beside_a_value_in_base64_is_masked_wherever_it_is_split() {
    let masks = masks(&["abcdefgh-12"]);
    for before in ["u", "us"] {
        let text = STANDARD.encode(format!("{before}abcdefgh-12xyz"));
        let whole = masked(&masks, text.as_bytes(), &[1000]);
        // The first character that has bits of the value.
        assert!(whole[before.len()..].starts_with(b"*"), "{whole:?}");
        for at in 1..text.len() {
            assert_eq!(masked(&masks, text.as_bytes(), &[at, 1000]), whole, "{before} at {at}");
        }
    }
}

#[test]
fn plugins_share_the_mask_of_one_value_and_it_counts_in_the_budget_as_long_as_it_is_needed() {
    let (shared, budget) = host();
    let printable = |at: usize| char::from(b'!' + (at * 7 % 90) as u8);
    let long: String = (0..wharf_core::bounds::SECRET_BYTES_MAX).map(printable).collect();
    let used = || budget.usage().used.iter().map(|(_, bytes)| bytes).sum::<u64>();
    let plugins: Vec<PluginMasks> = [long.as_str(), &long, VALUE]
        .map(|value| PluginMasks::new(&grants(&[value], &[]), &shared))
        .into_iter()
        .collect();
    assert_eq!(used(), 0, "none is made before a response needs it");
    let all: Vec<Arc<Masks>> = plugins.iter().map(|plugin| response(plugin, true, HOST, 443).unwrap()).collect();
    assert!(Arc::ptr_eq(&all[0].all[0].1, &all[1].all[0].1));
    assert!(!Arc::ptr_eq(&all[0].all[0].1, &all[2].all[0].1));
    let of_all = used();
    assert!((500_000..5_000_000).contains(&of_all), "{of_all}");
    drop((plugins, all));
    assert_eq!(used(), 0);
}

#[test]
fn a_mask_that_is_being_made_delays_only_those_who_need_it() {
    let (shared, _) = host();
    let [one, other, same] =
        [VALUE, "another-value", VALUE].map(|value| PluginMasks::new(&grants(&[value], &[]), &shared));
    let wanted = shared.of(grants(&[VALUE], &[]).iter().next().unwrap());
    RUNTIME.block_on(async {
        let making = wanted.making.lock().await;
        assert!(other.of_response(true, HOST, 443).await.unwrap().is_some());
        assert!(one.of_response(true, HOST, 443).now_or_never().is_none(), "it is made once");
        drop(making);
        let first = one.of_response(true, HOST, 443).await.unwrap().unwrap();
        let second = same.of_response(true, HOST, 443).await.unwrap().unwrap();
        assert!(Arc::ptr_eq(&first.all[0].1, &second.all[0].1));
    });
}

/// The receiver keeps the bytes that are passed on, or drops them: both are tried.
#[test]
fn what_is_held_back_is_not_moved_for_each_byte() {
    let masks = &self::masks(&[VALUE]);
    for keeps in [false, true] {
        let (mut scan, mut kept, mut moves) = (Scan::new(masks), Vec::new(), 0);
        for _ in 0..10_000 {
            let before = scan.held.as_ptr().addr();
            let passed = scan.feed(masks, Bytes::from_static(b"x"));
            moves += usize::from(scan.held.as_ptr().addr() != before + passed.len());
            if keeps {
                kept.push(passed);
            }
        }
        assert!(moves < 1000, "{moves}");
    }
}

/// A body of frames of one byte, which are all there.
struct SingleBytes(usize);

impl Body for SingleBytes {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(left) = self.0.checked_sub(1) else { return Poll::Ready(None) };
        self.0 = left;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"x")))))
    }
}

struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_body_of_which_nothing_is_passed_on_gives_others_their_turn() {
    let value: String = (0..300).map(|at| char::from(b'!' + (at * 7 % 90) as u8)).collect();
    let mut body = MaskedBody::new(SingleBytes(200), masks(&[&value]), |_| ());
    let woken = Arc::new(Woken(AtomicUsize::new(0)));
    let waker = Waker::from(Arc::clone(&woken));
    let mut turns = 0;
    let passed = loop {
        match Pin::new(&mut body).poll_frame(&mut Context::from_waker(&waker)) {
            Poll::Pending => {
                turns += 1;
                assert_eq!(woken.0.load(Ordering::Relaxed), turns, "it asks for its next turn itself");
            }
            Poll::Ready(Some(Ok(frame))) => break frame.into_data().unwrap(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(passed, "x".repeat(200));
    assert!(turns >= 2, "{turns}");
}
