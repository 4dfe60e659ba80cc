//! Nothing panics because its output has no reader.

use crate::{files_below, read, root};

/// The macros that panic if they cannot write, such as when the reader of a pipe is gone.
const PANICKING: [&str; 5] = ["println!(", "eprintln!(", "print!(", "eprint!(", "dbg!("];

#[test]
fn no_part_of_the_program_panics_if_its_output_has_no_reader() {
    let mut found = Vec::new();
    let mut checked = 0;
    for folder in ["host", "plugins/kit"] {
        for file in files_below(&root().join(folder), "rs") {
            let name = file.strip_prefix(root()).expect("it is below").display().to_string();
            let is_test = name.contains("/tests/") || name.ends_with("/tests.rs") || name.contains("/benches/");
            if is_test {
                continue;
            }
            checked += 1;
            let text = read(&file);
            let code = text.split("\n#[cfg(test)]\nmod ").next().unwrap_or(&text);
            for (number, line) in code.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//")) {
                let words = line.split(|c: char| c.is_whitespace() || "{(;".contains(c));
                let starts = |word: &str| PANICKING.iter().any(|name| *name == format!("{word}("));
                if words.clone().any(starts) {
                    found.push(format!("{name}:{}: {}", number + 1, line.trim()));
                }
            }
        }
    }
    assert!(checked > 100, "the sources are found: {checked}");
    assert!(found.is_empty(), "use `stderr::note` or `cli::output`:\n{}", found.join("\n"));
}
