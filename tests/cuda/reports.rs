//! What launches cost, and the order in which they go.

use super::ptx::{Order, Report};
use super::{Words, text};

fn report(body: &str) -> Report {
    Words::new(vec![0; 1024]).run(&text(body), 1, 32, 4096, Order::Forward).unwrap_or_else(|fault| panic!("{fault}"))
}

/// The address of every `stride`th word, in `%rd7`, from what `%rd5` holds.
fn strided(start: &str, stride: u32, body: &str) -> String {
    format!("{start}\nmul.wide.u32 %rd6, %r1, {};\nadd.s64 %rd7, %rd5, %rd6;\n{body}", 4 * stride)
}

#[test]
fn sectors_of_a_warp() {
    for (stride, sectors) in [(0, 1), (1, 4), (2, 8), (8, 32), (16, 32)] {
        // The allocation begins at a word; only what follows is counted from a sector.
        let aligned = "add.s64 %rd5, %rd1, 31;\nand.b64 %rd5, %rd5, -32;";
        let found = report(&strided(aligned, stride, "ld.global.u32 %r4, [%rd7];"));
        let fewest = if stride == 0 { 1 } else { 4 };
        assert_eq!((found.sectors, found.fewest_sectors), (sectors, fewest), "stride {stride}");
        assert_eq!((found.bytes_read, found.bytes_written), (128, 0));
    }
}

#[test]
fn banks_of_shared_memory() {
    for (stride, conflicts) in [(0, 0), (1, 0), (2, 1), (3, 0), (17, 0), (16, 15), (32, 31)] {
        let one_writes = "mov.u64 %rd5, dynamic;\nsetp.eq.s32 %p1, %r1, 0;";
        let body = if stride == 0 {
            "@%p1 st.shared.u32 [%rd7], %r1;\nbar.sync 0;\nld.shared.u32 %r4, [%rd7];"
        } else {
            "st.shared.u32 [%rd7], %r1;"
        };
        let found = report(&strided(one_writes, stride, body));
        assert_eq!(found.bank_conflicts, conflicts, "stride {stride}");
        assert_eq!(found.shared_accesses, if stride == 0 { 2 } else { 1 });
    }
}

#[test]
fn work_is_counted() {
    let nothing = report("");
    let some = report(
        "fma.rn.f32 %f1, %f2, %f3, %f4;\nsetp.lt.u32 %p1, %r1, 8;\n@%p1 mul.f32 %f1, %f1, %f1;\n@%p1 st.global.f32 [%rd2], %f1;",
    );
    assert_eq!((nothing.flops, some.flops), (0, 2 * 32 + 8));
    assert_eq!(some.instructions, nothing.instructions + 4);
    assert_eq!((some.bytes_written, (some + some).bytes_written), (32, 64));
}

#[test]
fn orders_differ() {
    let body = "mul.wide.u32 %rd5, %r2, 4;\nadd.s64 %rd6, %rd1, %rd5;\nst.global.u32 [%rd6], %r2;";
    let [forward, backward, shuffled] = [Order::Forward, Order::Backward, Order::Shuffled].map(|order| {
        let mut words = Words::new(vec![0; 32]);
        words.run(&text(body), 32, 1, 0, order).unwrap();
        assert_eq!(words.words, (0..32).collect::<Vec<u32>>());
        words.written.into_inner()
    });
    assert!(forward.is_sorted());
    assert!(backward.iter().rev().is_sorted());
    assert!(shuffled != forward && shuffled != backward);
}
