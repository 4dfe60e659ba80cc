//! Empty: the program is `main.rs`, and it offers nothing to other crates.
