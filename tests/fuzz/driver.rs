//! Feeds a target with inputs, in a process of its own: one that panics, overflows its stack, takes too much memory or never
//! ends is found, whatever it does to its process.
//!
//! Each target runs for `FUZZ_SECONDS`, ten by default, after all of its corpus. What it finds is left in a file;
//! `FUZZ_INPUT=FILE` runs a target on that file alone, in the test's own process. `FUZZ_SEED` repeats a run as far as time lets it.

use std::collections::HashSet;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use fastrand::Rng;
use rustix::process::{Resource, Rlimit, Signal, set_parent_process_death_signal, setrlimit};
use rustix::time::{ClockId, clock_gettime};

use super::mutate::mutated;

/// One reader of what strangers write.
pub(crate) struct Target {
    /// Also of the folder with its corpus.
    pub(crate) name: &'static str,
    /// Words of what it reads.
    pub(crate) tokens: &'static [&'static str],
    /// Bytes of an input at most.
    pub(crate) longest: usize,
    /// What one input may take of a processor.
    pub(crate) cpu: Duration,
    /// Makes an input from nothing, where changing the corpus does not reach far.
    pub(crate) make: Option<fn(&mut Rng) -> Vec<u8>>,
    /// Panics where something does not hold. Answers with what the input came to, of which each line is one end: inputs that
    /// come to a new one are changed further.
    pub(crate) check: fn(&[u8]) -> String,
}

/// Of memory a target may take so much, over what its process had before.
const MEMORY: u64 = 256 * 1024 * 1024;
/// As the threads of the host have it.
const STACK: usize = 2 * 1024 * 1024;
/// An input that has not ended by then never will, however busy the machine is.
const HANGS: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(50);
const SECONDS: u64 = 10;
const POOL_MAX: usize = 4000;

/// One end, from the line that tells of it: without what is quoted in it, and without its numbers.
fn end(line: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    for (place, part) in line.split(['`', '"', '\'']).enumerate() {
        if place % 2 == 0 {
            part.chars().filter(|c| c.is_ascii_alphabetic()).take(200).for_each(|c| c.hash(&mut hasher));
        }
    }
    hasher.finish()
}

/// Runs a target. `module` is the `module_path!()` of the test that calls this, which is named `holds`.
pub(crate) fn fuzz(module: &str, target: &Target) {
    if let Some(input) = std::env::var_os("FUZZ_INPUT") {
        (target.check)(&std::fs::read(input).expect("FUZZ_INPUT can be read"));
        return;
    }
    if let Some(notes) = std::env::var_os("FUZZ_NOTES") {
        let work = || bounded(target, &File::options().write(true).open(&notes).expect("the notes are there"));
        let thread = std::thread::scope(|scope| {
            std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, work).expect("a thread").join()
        });
        return thread.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    }
    let test = module.split_once("::").map_or_else(|| "holds".to_owned(), |(_, path)| format!("{path}::holds"));
    let seed = std::env::var("FUZZ_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (notes, said) = (folder.path().join("notes"), folder.path().join("said"));
    File::create(&notes).expect("a file");
    let mut child = Command::new(std::env::current_exe().expect("the file of this test"))
        .args(["--exact", &test, "--nocapture", "--test-threads=1"])
        .env("FUZZ_NOTES", &notes)
        .env("FUZZ_SEED", seed.to_string())
        .stdout(Stdio::null())
        .stderr(File::create(&said).expect("a file"))
        .spawn()
        .expect("this test starts once more");
    let (mut seen, mut since) = (0, Instant::now());
    let ended = loop {
        if let Some(status) = child.try_wait().expect("the child can be asked") {
            break Some(status);
        }
        let now = Notes::read(&notes).number;
        if now != seen {
            (seen, since) = (now, Instant::now());
        }
        if since.elapsed() > HANGS {
            let _ = child.kill();
            let _ = child.wait();
            break None;
        }
        std::thread::sleep(LOOK_EVERY);
    };
    let last = Notes::read(&notes);
    if ended.is_some_and(|status| status.success()) {
        println!("{}: {} inputs came to {} different ends; FUZZ_SEED={seed}", target.name, last.number, last.ends);
        assert!(last.number > 0, "the test {test} was not found in its own file");
        return;
    }
    let kept = keep(target, &last.input);
    let said = std::fs::read(&said).unwrap_or_default();
    let said = String::from_utf8_lossy(&said[said.len().saturating_sub(4000)..]).into_owned();
    panic!("{}: input {} {}: {}; FUZZ_SEED={seed}\n{said}", target.name, last.number, how(ended), kept.display());
}

fn how(ended: Option<ExitStatus>) -> String {
    match ended {
        Some(status) => format!("ended its process, {status}"),
        None => format!("has not ended after {HANGS:?}"),
    }
}

/// Leaves what was found where it is found again.
fn keep(target: &Target, input: &[u8]) -> PathBuf {
    let folder = std::env::current_exe().expect("the file of this test").with_file_name("fuzz-found");
    std::fs::create_dir_all(&folder).expect("a folder");
    let mut hasher = DefaultHasher::new();
    input.hash(&mut hasher);
    let file = folder.join(format!("{}-{:016x}", target.name, hasher.finish()));
    std::fs::write(&file, input).expect("it can be kept");
    file
}

/// What is known of a run if it ends badly: the input at hand, and how many came before.
struct Notes {
    number: u64,
    ends: u64,
    input: Vec<u8>,
}

impl Notes {
    const HEAD: usize = 24;

    fn write(to: &File, number: u64, ends: usize, input: &[u8]) {
        let mut bytes = Vec::with_capacity(Notes::HEAD + input.len());
        for part in [number, ends as u64, input.len() as u64] {
            bytes.extend_from_slice(&part.to_le_bytes());
        }
        bytes.extend_from_slice(input);
        to.write_all_at(&bytes, 0).expect("notes can be taken");
    }

    fn read(from: &Path) -> Notes {
        let bytes = std::fs::read(from).expect("the notes are there");
        let part =
            |at: usize| bytes.get(at..at + 8).map_or(0, |part| u64::from_le_bytes(part.try_into().expect("eight")));
        let input = bytes.get(Notes::HEAD..).unwrap_or_default();
        let length = usize::try_from(part(16)).expect("it fit a moment ago").min(input.len());
        Notes { number: part(0), ends: part(8), input: input[..length].to_vec() }
    }
}

/// What the child does, under bounds.
fn bounded(target: &Target, notes: &File) {
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    let limit = |resource, max| setrlimit(resource, Rlimit { current: Some(max), maximum: Some(max) });
    limit(Resource::Core, 0).expect("no core files");
    limit(Resource::Data, data_bytes() + MEMORY).expect("memory can be bounded");
    let variable = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let mut rng = Rng::with_seed(variable("FUZZ_SEED").expect("a seed"));
    let until = Instant::now() + Duration::from_secs(variable("FUZZ_SECONDS").unwrap_or(SECONDS));
    let mut pool = corpus(target.name);
    let mut ends = HashSet::new();
    let mut number = 0;
    let mut run = |input: &[u8], ends: &mut HashSet<u64>| {
        number += 1;
        Notes::write(notes, number, ends.len(), input);
        let before = thread_time();
        let came_to = (target.check)(input);
        let took = thread_time() - before;
        assert!(took <= target.cpu, "it took {took:?} of a processor; {:?} is the most", target.cpu);
        came_to.lines().filter(|line| ends.insert(end(line))).count() > 0
    };
    for input in pool.clone() {
        run(&input, &mut ends);
    }
    while Instant::now() < until {
        let made = target.make.filter(|_| rng.u8(..) < 64);
        let input = match made {
            Some(make) => make(&mut rng),
            None => mutated(&mut rng, &pool, target.tokens, target.longest),
        };
        if run(&input, &mut ends) && pool.len() < POOL_MAX {
            pool.push(input);
        }
    }
    Notes::write(notes, number, ends.len(), &[]);
}

/// The files of a target's corpus, in the order of their names.
fn corpus(name: &str) -> Vec<Vec<u8>> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let places = [here.join("fuzz/corpus"), here.join("../../tests/fuzz/corpus")];
    let folder = places.iter().map(|place| place.join(name)).find(|folder| folder.is_dir()).expect("it has a corpus");
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("a readable entry").path()).collect();
    files.sort();
    assert!(!files.is_empty(), "the corpus of {name} is empty");
    files.iter().map(|file| std::fs::read(file).expect("it can be read")).collect()
}

fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// What this process has of writable memory.
fn data_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux tells it");
    let line = status.lines().find_map(|line| line.strip_prefix("VmData:")).expect("it is there");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}
