//! The writer's outputs and notices.

use qkprobe_lang::Format;

use super::Notice;
use crate::counters::Totals;
use crate::engine::fake::{Bench, DO_ONE, FakeState};
use crate::engine::{Serving, now};

#[test]
fn an_index_is_used_again_after_its_last_record_with_counters_at_zero() {
    let mut bench = Bench::with_text();
    let (id, first) = bench.probe("p:old do_one a=%ax:u64");
    let (vcpu, state) = (bench.vcpu(0, 1 << 20), FakeState::kernel());
    bench.writer.while_locked(|| {
        for n in 0..1000 {
            state.set("ax", n);
            bench.execute(&vcpu, DO_ONE, &state, Serving::Plain);
        }
    });
    assert_eq!(bench.totals(first).hits, 1000);
    bench.remove(id);
    bench.writer.retire_output(first);
    let start = std::time::Instant::now();
    while bench.totals(first) != Totals::default() {
        assert!(start.elapsed().as_secs() < 120, "the index does not become free");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    let (_, again) = bench.probe("p:new do_one b=%bx:u64");
    assert_eq!(again, first);
    assert_eq!(bench.totals(again), Totals::default());
    state.set("bx", 7);
    bench.execute(&vcpu, DO_ONE, &state, Serving::Plain);
    let lines = bench.events();
    assert_eq!(bench.totals(again), Totals { hits: 1, written: 1, ..Totals::default() });
    // All records of the old one bear its own name and arguments.
    assert_eq!(lines.len(), 1001);
    for (n, line) in lines.iter().take(1000).enumerate() {
        assert_eq!(*line, format!("old: (do_one) a={n}"));
    }
    assert_eq!(lines[1000], "new: (do_one) b=7");
}

fn notices(format: Format) -> Vec<String> {
    let bench = Bench::with_text_as(format);
    let notice =
        Notice { time: now() + 2_000_000_000, kind: "text", place: "do_one+0x3".into(), text: "now cc".into() };
    bench.writer.notice(notice);
    bench.finish_whole().into_iter().filter(|line| line.contains("do_one+0x3")).collect()
}

#[test]
fn notices_stand_between_the_records() {
    let lines = notices(Format::Ftrace);
    let [line] = lines.as_slice() else { panic!("{lines:?}") };
    let (head, time) = line.split_once(": ").expect("a kind");
    let (seconds, rest) = time.split_once(": ").expect("a time");
    assert_eq!((head, rest), ("# text", "do_one+0x3: now cc"));
    let seconds: f64 = seconds.parse().expect("seconds");
    assert!((2.0..60.0).contains(&seconds), "{seconds}");

    let lines = notices(Format::Json);
    let [line] = lines.as_slice() else { panic!("{lines:?}") };
    let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
    assert_eq!(
        (&line["type"], &line["place"], &line["text"]),
        (&"text".into(), &"do_one+0x3".into(), &"now cc".into())
    );
    assert!(line["time"].as_f64().is_some_and(|time| (2.0..60.0).contains(&time)), "{line}");
}

#[test]
fn so_many_notices_may_wait_and_no_more() {
    let bench = Bench::with_text();
    bench.writer.while_locked(|| {
        for n in 0..5000 {
            let text = format!("number {n}");
            bench.writer.notice(Notice { time: now(), kind: "text", place: "here".into(), text });
        }
    });
    let lines = bench.finish_whole();
    let count = lines.iter().filter(|line| line.starts_with("# text: ")).count();
    assert!((1000..=5000).contains(&count), "{count}");
}
