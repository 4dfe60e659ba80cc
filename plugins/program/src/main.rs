//! An ordinary program: writes its standard input in capitals. Nothing here knows Wharf. Its arguments make it do what the tests of
//! programs need.

use std::io::{self, Read, Write};
use std::process::{self, ExitCode};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["--status", status] => process::exit(status.parse().expect("a number")),
        ["--fail", status] => {
            eprintln!("could not do it");
            return ExitCode::from(status.parse::<u8>().expect("a number"));
        }
        ["--panic-after", text] => {
            io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush()).expect("written");
            panic!("asked to panic")
        }
        ["--panic"] => panic!("asked to panic"),
        ["--spin"] => loop {
            std::hint::black_box(0);
        },
        ["--flood"] => {
            let line = [b'x'; 4095];
            loop {
                io::stdout().write_all(&line).and_then(|()| io::stdout().write_all(b"\n")).expect("written");
            }
        }
        ["--hoard"] => {
            let mut hoard = Vec::new();
            loop {
                hoard.extend([1_u8; 65_536]);
            }
        }
        ["--env", name] => println!("{}", std::env::var(name).unwrap_or_else(|_| "none".into())),
        ["--args", ..] => println!("{:?}", std::env::args().collect::<Vec<_>>()),
        _ => {
            let mut text = String::new();
            io::stdin().read_to_string(&mut text).expect("text");
            eprintln!("{} bytes", text.len());
            print!("{}", text.to_uppercase());
        }
    }
    ExitCode::SUCCESS
}
