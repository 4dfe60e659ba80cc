use super::*;

#[test]
fn typescript_has_what_the_contract_says() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    write(Binding::TypeScript, None, contract::WORLD, dir.path()).expect("it can be written");
    let text = fs::read_to_string(dir.path().join("wit.d.ts")).expect("it was written");
    for says in [
        "declare module \"wharf:plugin/attempt@0.1.0\" {\n  const imported: {\n",
        "     * @throws {Error & { payload: string }}\n     */\n    emit(chunk: Uint8Array): void;",
        "    /** Milliseconds until the host stops this attempt. */\n    remainingMs(): number;",
        "    key: string | null;",
        "    | { tag: \"retry-after\"; val: [string, number] }",
        "      new (task: string, payload: Uint8Array): NewJob;",
        "    enqueue(jobs: Array<NewJob>): Array<string>;",
        "  export type Failure = import(\"wharf:plugin/types@0.1.0\").Failure;",
        "  export interface Handler {\n",
        "     * @throws {Failure}\n     */\n    handle(job: Job): Uint8Array;",
    ] {
        assert!(text.contains(says), "`{says}` is not in\n{text}");
    }
}

#[test]
fn a_world_with_functions_of_its_own_is_refused_for_typescript() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    fs::write(dir.path().join("w.wit"), "package a:b; world w { export run: func(); }").expect("a file");
    let error = write(Binding::TypeScript, Some(dir.path()), "w", dir.path()).expect_err("it has no interface");
    assert!(error.to_string().contains("`run` stands in the world itself"), "{error}");
}
