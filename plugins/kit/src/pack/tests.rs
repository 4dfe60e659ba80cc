use super::*;

/// A module without anything in it, and a section that debuggers read.
const EMPTY: &[u8] = b"\0asm\x01\0\0\0";

#[test]
fn what_is_no_core_module_is_refused_in_words() {
    let refused = |bytes: &[u8]| pack(bytes, None, contract::WORLD).expect_err("refused").to_string();
    assert!(refused(COMPONENT).contains("component already"));
    assert!(refused(b"int main").contains("no WebAssembly module"));
    assert!(refused(b"\0asm\x01\0\0\0\x01\x7f").contains("cut off"));
}

#[test]
fn a_module_that_lacks_the_handler_is_told_which_function() {
    let error = format!("{:#}", pack(EMPTY, None, contract::WORLD).expect_err("it exports nothing"));
    assert!(error.contains("wharf:plugin/"), "{error}");
    let error = format!("{:#}", pack(EMPTY, None, "nonsense").expect_err("no such world"));
    assert!(error.contains("handler-plugin"), "the worlds there are: {error}");
}

#[test]
fn debug_information_goes_and_names_stay() {
    let section = |name: &[u8]| [&[0, name.len() as u8 + 3, name.len() as u8], name, b"ab"].concat();
    let module = [EMPTY, &section(b".debug_info"), &section(b"name"), &section(b".debug_line")].concat();
    assert_eq!(without_debug_information(&module), Some([EMPTY, &section(b"name")].concat()));
}
