//! Puts more memories into a component than its language knows how to ask for: each hides under a limit that counts only one.

use anyhow::{Result, bail};

/// A core module with one exported memory of sixteen pages, which is one MiB.
const MODULE: [u8; 22] = [
    0x00, b'a', b's', b'm', 1, 0, 0, 0, // the head of a core module
    5, 3, 1, 0, 16, // one memory, of sixteen pages at first
    7, 7, 1, 3, b'm', b'e', b'm', 2, 0, // exported as "mem"
];
const HEAD: [u8; 8] = [0x00, b'a', b's', b'm', 0x0d, 0, 1, 0];
const CORE_MODULE: u8 = 1;
const CORE_INSTANCE: u8 = 2;

/// Appends the module once and an instance of it for each memory. A component's sections may come in any order and number.
pub(crate) fn append(component: &mut Vec<u8>, count: u32) -> Result<()> {
    let module = modules(component)?;
    section(component, CORE_MODULE, &MODULE);
    for _ in 0..count {
        let mut instance = vec![1, 0x00];
        leb128(&mut instance, module);
        instance.push(0);
        section(component, CORE_INSTANCE, &instance);
    }
    Ok(())
}

/// How many core modules a component has already: the index of the next.
fn modules(component: &[u8]) -> Result<u32> {
    let Some(mut rest) = component.strip_prefix(&HEAD) else { bail!("what was built is no component") };
    let mut modules = 0;
    while let [id, after @ ..] = rest {
        let mut size = 0_usize;
        let mut read = 0;
        for byte in after {
            size |= usize::from(byte & 0x7f) << (7 * read);
            read += 1;
            if byte & 0x80 == 0 {
                break;
            }
        }
        modules += u32::from(*id == CORE_MODULE);
        let Some(next) = after.get(read + size..) else { bail!("the component that was built is cut off") };
        rest = next;
    }
    Ok(modules)
}

fn section(component: &mut Vec<u8>, id: u8, content: &[u8]) {
    component.push(id);
    // Every content here is a few bytes.
    leb128(component, content.len() as u32);
    component.extend(content);
}

fn leb128(to: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        to.push(value as u8 | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}
