//! Does to its values what it is told, step by step.

use std::{thread, time::Duration};

use exports::wharf::plugin::{
    handler::{self, Failure, Job},
    manifest,
    subscriber::{self, Message},
};
use serde::Deserialize;
use serde_json::{Value, json};
use wasi::config::store as config;
use wharf::plugin::{
    holds,
    jobs::{self, NewJob},
    kv,
    schedule,
};

wit_bindgen::generate!({
    path: "../../wit",
    inline: "
        package mine:villain-kv;

        world villain {
            include wharf:plugin/plugin@0.1.0;
            import wharf:plugin/kv@0.1.0;
            import wharf:plugin/holds@0.1.0;
            import wharf:plugin/schedule@0.1.0;
            import wasi:config/store@0.2.0-rc.1;
        }

        package wasi:config@0.2.0-rc.1 {
            interface store {
                variant error { upstream(string), io(string) }
                get: func(key: string) -> result<option<string>, error>;
            }
        }
    ",
    world: "mine:villain-kv/villain",
    generate_all,
});

#[derive(Deserialize)]
struct Order {
    steps: Vec<Step>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Step {
    Get(String),
    Set(String, String),
    Remove(String),
    Keys { prefix: String, after: Option<String>, most: u32 },
    Add(String),
    Fill { key: String, bytes: usize },
    Many { prefix: String, count: usize, bytes: usize },
    Ask { key: String, times: u32 },
    Config(String),
    Env(String),
    Hold { ms: u64, reason: String },
    Tick,
    Sleep(u64),
    Fail(String),
    Enqueue(String),
    Trap,
    Loop,
}

fn text(bytes: Vec<u8>) -> Value {
    String::from_utf8_lossy(&bytes).into_owned().into()
}

fn add(key: &str) -> Result<Value, String> {
    let before = kv::get(key)?.map_or(0, |bytes| String::from_utf8_lossy(&bytes).parse::<u64>().unwrap_or(0));
    kv::set(key, (before + 1).to_string().as_bytes())?;
    Ok(json!(before + 1))
}

fn many(prefix: &str, count: usize, bytes: usize) -> Result<Value, String> {
    let value = vec![b'x'; bytes];
    (0..count).try_for_each(|number| kv::set(&format!("{prefix}{number}"), &value))?;
    Ok(json!(count))
}

fn enqueue(task: &str) -> Result<Value, String> {
    let job = NewJob::new(task, br#"{"steps": []}"#);
    Ok(jobs::enqueue(vec![job])?.into())
}

fn take(step: Step) -> Result<Result<Value, String>, Failure> {
    Ok(match step {
        Step::Get(key) => kv::get(&key).map(|found| found.map_or(Value::Null, text)),
        Step::Set(key, value) => kv::set(&key, value.as_bytes()).map(|()| Value::Null),
        Step::Remove(key) => kv::remove(&key).map(|()| Value::Null),
        Step::Keys { prefix, after, most } => kv::keys(&prefix, after.as_deref(), most).map(Value::from),
        Step::Add(key) => add(&key),
        Step::Fill { key, bytes } => kv::set(&key, &vec![b'x'; bytes]).map(|()| Value::Null),
        Step::Many { prefix, count, bytes } => many(&prefix, count, bytes),
        Step::Ask { key, times } => (0..times).try_for_each(|_| kv::get(&key).map(drop)).map(|()| Value::Null),
        Step::Config(name) => config::get(&name).map(Value::from).map_err(|error| format!("{error:?}")),
        Step::Env(name) => Ok(std::env::var(name).ok().into()),
        Step::Hold { ms, reason } => holds::hold_key(ms, &reason).map(Value::from),
        Step::Tick => Ok(json!({ "tick": schedule::tick(), "previous": schedule::previous(), "missed": schedule::missed() })),
        Step::Sleep(ms) => {
            thread::sleep(Duration::from_millis(ms));
            Ok(Value::Null)
        }
        Step::Fail(how) if how == "retry" => return Err(Failure::Retry("asked to fail".into())),
        Step::Fail(_) => return Err(Failure::Discard("asked to fail".into())),
        Step::Enqueue(task) => enqueue(&task),
        Step::Trap => panic!("asked to panic"),
        Step::Loop => loop {
            std::hint::spin_loop();
        },
    })
}

fn all(payload: &[u8]) -> Result<Vec<u8>, Failure> {
    let order: Order = serde_json::from_slice(payload).map_err(|e| Failure::Discard(format!("no steps: {e}")))?;
    let mut came = Vec::new();
    for step in order.steps {
        came.push(take(step)?.unwrap_or_else(|error| json!({ "error": error })));
    }
    serde_json::to_vec(&came).map_err(|e| Failure::Discard(e.to_string()))
}

struct Villain;

impl manifest::Guest for Villain {
    fn describe() -> String {
        include_str!("../manifest.toml").into()
    }
}

impl handler::Guest for Villain {
    fn handle(job: Job) -> Result<Vec<u8>, Failure> {
        all(&job.payload)
    }
}

impl subscriber::Guest for Villain {
    fn receive(message: Message) -> Result<Vec<u8>, Failure> {
        all(&message.payload)
    }
}

export!(Villain);
