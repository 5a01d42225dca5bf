//! Kernels with an error, each of which has to be found, and where it is. The line at fault is marked `// here`.

use super::ptx::{Fault, Launch, Module, Order};
use super::{Words, text};

const ORDERS: [Order; 3] = [Order::Forward, Order::Backward, Order::Shuffled];

/// Words of the memory that these kernels work on.
const SIZE: usize = 64;

struct Start {
    blocks: u32,
    threads: u32,
    shared_bytes: usize,
}

const ONE_BLOCK: Start = Start { blocks: 1, threads: 64, shared_bytes: 256 };
/// In which the threads' accesses of one instruction come before those of the next, in every order.
const ONE_WARP: Start = Start { threads: 32, ..ONE_BLOCK };
const TWO_BLOCKS: Start = Start { blocks: 2, threads: 32, shared_bytes: 256 };

fn run(body: &str, start: &Start, order: Order) -> Result<(), Fault> {
    let Start { blocks, threads, shared_bytes } = *start;
    Words::new(vec![0; SIZE]).run(&text(body), blocks, threads, shared_bytes, order).map(|_| ())
}

#[track_caller]
fn finds(what: &str, start: &Start, body: &str) {
    let text = text(body);
    let line = 1 + text.lines().position(|line| line.ends_with("// here")).expect("a line that is marked");
    for order in ORDERS {
        let fault = run(body, start, order).expect_err("a kernel with an error");
        assert!(fault.what.contains(what), "{fault}");
        assert_eq!((fault.kernel.as_str(), fault.line), ("test", line), "{fault}");
    }
}

#[track_caller]
fn passes(start: &Start, body: &str) {
    for order in ORDERS {
        run(body, start, order).unwrap_or_else(|fault| panic!("{fault}"));
    }
}

/// A thread's word of the shared memory that a launch gives, in `%rd6`, and its neighbour's, in `%rd7`.
const SHARED: &str = "
    mov.u64 %rd5, dynamic;
    add.s64 %rd6, %rd5, %rd4;
    xor.b32 %r3, %r1, 1;
    mul.wide.u32 %rd7, %r3, 4;
    add.s64 %rd7, %rd5, %rd7;
";

fn shared(body: &str) -> String {
    format!("{SHARED}{body}")
}

#[test]
fn global_memory_has_bounds() {
    passes(&ONE_BLOCK, "st.global.u32 [%rd2], %r1;");
    finds("outside of every allocation", &ONE_BLOCK, "st.global.u32 [%rd2+4], %r1; // here");
    finds("outside of every allocation", &ONE_BLOCK, "st.global.u32 [%rd2+-4], %r1; // here");
    finds("outside of every allocation", &ONE_BLOCK, "ld.global.u16 %rs1, [%rd2+256]; // here");
    let fault = run("st.global.u32 [%rd2+4], %r1;", &ONE_BLOCK, Order::Forward).unwrap_err();
    assert_eq!((fault.block, fault.thread), ([0; 3], 63));
}

#[test]
fn accesses_are_aligned() {
    finds("not aligned", &ONE_BLOCK, "ld.global.f32 %f1, [%rd1+2]; // here");
    passes(&ONE_BLOCK, "ld.global.u16 %rs1, [%rd1+2];");
    finds("not aligned", &ONE_BLOCK, &shared("st.shared.u32 [%rd5+2], %r1; // here"));
}

#[test]
fn shared_memory_has_bounds() {
    passes(&ONE_BLOCK, &shared("st.shared.u32 [%rd6], %r1;"));
    finds("outside of shared memory", &ONE_BLOCK, &shared("st.shared.u32 [%rd6+4], %r1; // here"));
    finds(
        "outside of shared memory",
        &Start { shared_bytes: 255, ..ONE_BLOCK },
        &shared("st.shared.u32 [%rd6], %r1; // here"),
    );
    // What a launch gives lies behind what the kernel declares, and isn't there unless it does.
    finds(
        "outside of shared memory",
        &Start { shared_bytes: 0, ..ONE_BLOCK },
        &shared("st.shared.u32 [%rd6], %r1; // here"),
    );
    let both =
        "mov.u64 %rd8, words;\nadd.s64 %rd9, %rd8, %rd4;\nst.shared.u32 [%rd9], %r1;\nst.shared.u32 [%rd7], %r1;";
    passes(&ONE_BLOCK, &shared(both));
    passes(
        &Start { shared_bytes: 0, ..ONE_BLOCK },
        "mov.u64 %rd5, words;\nadd.s64 %rd6, %rd5, %rd4;\nst.shared.u32 [%rd6], %r1;",
    );
}

#[test]
fn shared_memory_is_written_first() {
    finds("read before it is written", &ONE_BLOCK, &shared("ld.shared.u32 %r4, [%rd6]; // here"));
    passes(&ONE_BLOCK, &shared("st.shared.u32 [%rd6], %r1;\nld.shared.u32 %r4, [%rd6];"));
}

#[test]
fn global_memory_is_written_first_where_account_is_kept() {
    let fresh = || Words { is_fresh: true, ..Words::new(vec![0; SIZE]) };
    let run = |body: &str| fresh().run(&text(body), 1, 64, 0, Order::Forward);
    assert!(run("ld.global.u32 %r4, [%rd2];").unwrap_err().what.contains("read before they are written"));
    run("st.global.u32 [%rd2], %r1;\nld.global.u32 %r4, [%rd2];").unwrap();
}

#[test]
fn threads_of_a_block_race() {
    let write = "st.shared.u32 [%rd6], %r1;\n";
    let barrier = "bar.sync 0;\n";
    passes(&ONE_BLOCK, &shared(&format!("{write}{barrier}ld.shared.u32 %r4, [%rd7];")));
    finds("reads what thread", &ONE_BLOCK, &shared(&format!("{write}ld.shared.u32 %r4, [%rd7]; // here")));
    passes(&ONE_BLOCK, &shared(&format!("{write}{barrier}ld.shared.u32 %r4, [%rd7];\n{barrier}{write}")));
    finds(
        "writes what thread",
        &ONE_BLOCK,
        &shared(&format!("{write}{barrier}ld.shared.u32 %r4, [%rd7];\nst.shared.u32 [%rd6], %r1; // here")),
    );
    finds("writes what thread", &ONE_BLOCK, &shared("st.shared.u32 [%rd5], %r1; // here"));
    finds(
        "reads what thread",
        &ONE_WARP,
        "st.global.u32 [%rd2], %r1;\nsetp.eq.s32 %p1, %r1, 0;\n@%p1 ld.global.u32 %r4, [%rd1];\nld.global.u32 %r4, [%rd1]; // here",
    );
    finds(
        "writes what thread",
        &ONE_WARP,
        "ld.global.u32 %r4, [%rd1];\nsetp.eq.s32 %p1, %r1, 5;\n@%p1 st.global.u32 [%rd1], %r4; // here",
    );
    let all_read = "setp.eq.s32 %p1, %r1, 0;\nsetp.eq.s32 %p2, %r1, 1;\nld.global.u32 %r4, [%rd1];\nbar.sync 0;\n";
    passes(&ONE_BLOCK, &format!("{all_read}@%p1 st.global.u32 [%rd1], %r4;"));
    finds(
        "writes what thread 1 read",
        &ONE_WARP,
        &format!("{all_read}@%p2 ld.global.u32 %r4, [%rd1];\n@%p1 st.global.u32 [%rd1], %r4; // here"),
    );
    // The one that writes is the first of those that read.
    finds(
        "writes what other threads read",
        &ONE_WARP,
        "ld.global.u32 %r4, [%rd1];\nsetp.eq.s32 %p1, %r1, 0;\n@%p1 st.global.u32 [%rd1], %r4; // here",
    );
}

#[test]
fn halves_of_a_word_are_two_places() {
    let halves = "
    mul.wide.u32 %rd6, %r1, 2;
    add.s64 %rd6, %rd1, %rd6;
    cvt.rn.f16.f32 %rs1, 0f3F800000;
    st.global.u16 [%rd6], %rs1;
    ";
    passes(&ONE_BLOCK, halves);
    finds("reads what thread", &ONE_WARP, &format!("{halves}ld.global.u32 %r4, [%rd1]; // here"));
}

#[test]
fn blocks_race() {
    passes(&TWO_BLOCKS, "ld.global.u32 %r4, [%rd2];");
    finds("writes what block", &TWO_BLOCKS, "bar.sync 0;\nst.global.u32 [%rd2], %r1; // here");
    // In every order, one of both comes second.
    let body = "setp.eq.s32 %p1, %r2, 0;\n@%p1 st.global.u32 [%rd1+32], %r2;\n@!%p1 ld.global.u32 %r4, [%rd1+32];";
    let one_thread = Start { threads: 1, ..TWO_BLOCKS };
    for order in ORDERS {
        assert!(run(body, &one_thread, order).unwrap_err().what.contains("race"));
    }
}

#[test]
fn all_threads_come_to_a_barrier() {
    let skip = |limit: u32, rest: &str| {
        format!("setp.ge.u32 %p1, %r1, {limit};\n@%p1 bra $behind;\nbar.sync 0; // here\n$behind:\n{rest}")
    };
    // Half of a warp goes by it, a whole warp, or to another one.
    finds("not all threads of the warp", &ONE_BLOCK, &skip(16, ""));
    finds("not all warps of the block", &ONE_BLOCK, &skip(32, ""));
    finds("not all threads of the warp", &ONE_BLOCK, &skip(16, "bar.sync 0;"));
    finds("not all threads of the warp", &ONE_BLOCK, "setp.eq.s32 %p1, %r1, 3;\n@%p1 ret;\nbar.sync 0; // here");
    passes(&ONE_BLOCK, "setp.eq.s32 %p1, %r2, 0;\n@%p1 ret;\nbar.sync 0;");
    let fault = run(&skip(32, "bar.sync 0;"), &ONE_BLOCK, Order::Forward).unwrap_err();
    assert!(fault.what.contains("not all warps of the block"), "{fault}");
}

#[test]
fn threads_wait_for_those_that_come_from_further_on() {
    let shuffled = "
    and.b32 %r5, %r1, 1;
    setp.eq.s32 %p1, %r5, 1;
    @%p1 bra $odd;
$both:
    bar.sync 0;
    mov.u32 %r6, 0;
    mov.u32 %r7, 31;
    mov.u32 %r8, -1;
    shfl.sync.idx.b32 %r9|%p2, %r1, %r6, %r7, %r8;
    st.global.u32 [%rd2], %r9;
    ret;
$odd:
    add.s32 %r5, %r5, 1;
    bra.uni $both;
    ";
    let mut words = Words::new(vec![u32::MAX; SIZE]);
    words.run(&text(shuffled), 1, 64, 0, Order::Forward).unwrap();
    let expected: Vec<u32> = (0..64).map(|thread| thread / 32 * 32).collect();
    assert_eq!(words.words, expected);
}

#[test]
fn whole_warps_shuffle() {
    let shuffle = |clamp: i32, members: i32, guard: &str| {
        format!(
            "setp.ne.s32 %p1, %r1, 3;\nmov.u32 %r7, {clamp};\nmov.u32 %r8, {members};\n{guard} shfl.sync.idx.b32 %r9|%p2, %r1, 0, %r7, %r8; // here"
        )
    };
    passes(&ONE_BLOCK, &shuffle(31, -1, ""));
    finds("not all threads of the warp", &ONE_BLOCK, &shuffle(31, -1, "@%p1"));
    finds("less than the warp", &ONE_BLOCK, &shuffle(31, 15, ""));
    finds("less than the warp", &ONE_BLOCK, &shuffle(7, -1, ""));
    finds("not all threads of the warp", &Start { threads: 33, ..ONE_BLOCK }, &shuffle(31, -1, ""));
}

#[test]
fn kernels_come_to_an_end() {
    finds("does not come to an end", &Start { threads: 1, ..ONE_BLOCK }, "$again:\nbra $again; // here");
    let endless = text("").replace("ret;", "");
    let fault = Words::new(vec![0]).run(&endless, 1, 1, 0, Order::Forward).unwrap_err();
    assert!(fault.what.contains("behind the last instruction"), "{fault}");
}

#[test]
fn launches_have_limits() {
    let module = Module::parse(&text("")).unwrap();
    let kernel = module.kernel("test").unwrap();
    let fits = || Launch {
        grid: [1; 3],
        block: [256, 1, 1],
        shared_bytes: 47 << 10,
        parameters: vec![0; 12],
        order: Order::Forward,
    };
    let refused = |change: fn(&mut Launch)| {
        let mut launch = fits();
        change(&mut launch);
        kernel.launch(&launch, &Words::new(vec![0])).expect_err("a launch beyond the limits").what
    };
    kernel.launch(&fits(), &Words::new(vec![0])).unwrap();
    assert!(refused(|launch| launch.block = [257, 1, 1]).contains("threads"));
    assert!(refused(|launch| launch.block = [1, 1, 65]).contains("threads"));
    assert!(refused(|launch| launch.block[1] = 0).contains("threads"));
    assert!(refused(|launch| launch.grid = [1, 65536, 1]).contains("blocks"));
    assert!(refused(|launch| launch.grid[0] = 0).contains("blocks"));
    assert!(refused(|launch| launch.shared_bytes += 1).contains("shared memory"));
    assert!(refused(|launch| launch.parameters.push(0)).contains("parameters"));
}

#[test]
fn parameters_have_places() {
    let two = text("").replace(".param .u64 test_param_0,", ".param .f32 first,\n.param .u64 test_param_0,");
    let module = Module::parse(&two).unwrap();
    let places: Vec<_> =
        module.kernel("test").unwrap().parameters().iter().map(|p| (p.name.as_str(), p.offset, p.size)).collect();
    assert_eq!(places, [("first", 0, 4), ("test_param_0", 8, 8), ("test_param_1", 16, 4)]);
    assert!(module.kernel("other").is_none());
}

#[test]
fn what_is_not_known_is_not_run() {
    for unknown in [
        "ex2.approx.f32 %f1, %f2;",
        "fma.rz.f32 %f1, %f2, %f3, %f4;",
        "ld.local.u32 %r4, [%rd1];",
        "ld.shared.v2.f32 {%f1, %f2}, [%rd1];",
        "setp.lt.b32 %p1, %r4, %r5;",
        "add.s32 %r4, %r5;",
        "add.s32 %r4, %r5, %r16;",
        "add.s32 %r4, %r5, 4294967296;",
        "add.s32 %rd4, %r5, %r6;",
        "mov.u64 %rd5, elsewhere;",
        "bra $nowhere;",
        "bar.sync 1;",
        "ld.param.u64 %rd5, [test_param_1];",
        "ld.param.u32 %r5, [test_param_2];",
        ".local .align 4 .b8 depot[16];",
        ".reg .f16 %h<3>;",
        "ret",
    ] {
        let text = text(unknown);
        let line = 1 + text.lines().position(|line| line == unknown).unwrap();
        let refusal = Module::parse(&text).expect_err(unknown);
        assert!(
            refusal.starts_with(&format!("line {line} ")) && refusal.contains(unknown.trim_end_matches(';')),
            "{refusal}"
        );
    }
    assert!(Module::parse(".func helper()").unwrap_err().contains("line 1 "));
    assert!(Module::parse(text("").trim_end().trim_end_matches('}')).unwrap_err().contains("ends within a kernel"));
}
