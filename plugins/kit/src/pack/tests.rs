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

/// A program for WASI preview 1 that does nothing.
const PROGRAM: &[u8] =
    b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0\x05\x03\x01\0\x01\x07\x13\x02\x06memory\x02\0\x06_start\0\0\x0a\x04\x01\x02\0\x0b";

#[test]
fn a_program_of_preview_1_becomes_one_of_wasi_0_2() {
    let packed = pack(PROGRAM, None, contract::WORLD).expect("it is a program");
    let run = b"wasi:cli/run@0.2";
    assert!(is_component(&packed) && packed.windows(run.len()).any(|part| part == run));
    assert!(is_program_as_it_is(PROGRAM) && !is_program_as_it_is(&packed) && !is_program_as_it_is(EMPTY));
    let by_go = [PROGRAM, b"\0\x0c\x0ago:buildidx"].concat();
    // A program that makes components has the name of a section in its data.
    let by_name = [PROGRAM, b"\0\x12\x03abccomponent-type"].concat();
    assert!(
        is_program_as_it_is(&by_name)
            && pack(&by_name, None, contract::WORLD).is_ok_and(|packed| is_component(&packed))
    );
    let with_world = [PROGRAM, b"\0\x10\x0fcomponent-type:"].concat();
    assert!(!is_program_as_it_is(&with_world));
    let refused = pack(&by_go, None, contract::WORLD).expect_err("it breaks").to_string();
    assert!(refused.contains("made by Go") && refused.contains("as it is"), "{refused}");
}

#[test]
fn a_component_has_one_manifest() {
    let packed = pack(PROGRAM, None, contract::WORLD).expect("it is a program");
    let count = |bytes: &[u8]| bytes.windows(MANIFEST_SECTION.len()).filter(|part| *part == MANIFEST_SECTION).count();
    let first = with_manifest(&packed, "name = 'a'").expect("it is whole");
    let second = with_manifest(&first, &"# long\n".repeat(100)).expect("it is whole");
    assert_eq!((count(&packed), count(&first), count(&second)), (0, 1, 1));
    assert!(first.starts_with(&packed) && second.ends_with(b"# long\n"));
    assert!(with_manifest(&packed[..packed.len() - 1], "").is_err());
    let program = with_manifest(PROGRAM, "name = 'a'").expect("it is whole");
    assert!(program.starts_with(PROGRAM) && is_program_as_it_is(&program));
}
