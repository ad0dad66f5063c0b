//! Logs of containers: parts, outputs, restarts in the middle of everything. See also the parent module.

use super::*;

impl Bench {
    /// A server drops what is not behind the last line of its file that it has.
    fn check_offsets(&self) {
        let mut reached = BTreeMap::new();
        for (file, line) in self.sink.batches.iter().flat_map(|batch| batch.lines.iter().map(|line| (batch.file, line))) {
            let last = reached.insert(file, line.end_offset);
            assert!(last.is_none_or(|last| last < line.end_offset), "{file:?}: {last:?}, then {}", line.end_offset);
        }
    }

    fn of_containers(format: &str, change: impl FnOnce(&mut Source)) -> Self {
        Self::new(|config| {
            let mut source = Source { files: std::mem::take(&mut config.files), format: format.into(), ..Source::default() };
            change(&mut source);
            config.sources = vec![source];
        })
    }

    /// Texts of one output.
    fn of(&self, output: &str) -> Vec<&str> {
        let batches = self.sink.batches.iter().filter(|batch| batch.labels.get("stream") == Some(output));
        batches.flat_map(|batch| &batch.lines).map(|line| line.text.as_str()).collect()
    }
}

fn docker(output: &str, log: &str) -> String {
    let log = serde_json::to_string(log).unwrap();
    format!("{{\"log\":{log},\"stream\":\"{output}\",\"time\":\"2027-01-15T07:00:00.25Z\"}}\n")
}

#[test]
fn docker_parts_are_joined_before_masking_and_outputs_are_told_apart() {
    let mut bench = Bench::of_containers("docker", |_| {});
    bench.write("a.log", docker("stdout", "one\n"));
    bench.write("a.log", docker("stdout", "mail to buyer.wang@exa"));
    bench.write("a.log", docker("stderr", "between\n"));
    bench.write("a.log", docker("stdout", "mple.com sent\n") + "not json\n" + &docker("stdout", "收货\n"));
    bench.poll();
    assert_eq!(bench.of("stderr"), ["between"]);
    let told = bench.of("stdout");
    assert_eq!((told[0], told[2], told[3]), ("one", "not json", "收货"));
    assert!(told[1].starts_with("mail to ") && told[1].ends_with(" sent") && !told[1].contains("wang"), "{}", told[1]);
    let line = &bench.sink.batches[0].lines[0];
    assert_eq!(line.ts_ns, (1_800_000_000 - 3600) * SECOND + SECOND / 4);
}

#[test]
fn a_restart_in_the_middle_of_a_part_loses_and_doubles_nothing() {
    let mut text = String::new();
    for at in 0..6 {
        text += &docker("stdout", &format!("out {at} a"));
        text += &docker("stderr", &format!("err {at} whole\n"));
        text += &docker("stdout", " b");
        text += &docker("stderr", &format!("err {at} c"));
        text += &docker("stdout", " c\n");
        text += &docker("stderr", " d\n");
    }
    for (step, preset) in [(1, ""), (7, ""), (40, ""), (97, "java"), (1000, "java")] {
        let mut bench = Bench::of_containers("docker", |source| source.multiline.preset = preset.into());
        for piece in text.as_bytes().chunks(step) {
            bench.write("a.log", piece);
            bench.now += SECOND / 10;
            let rests = (0..20).any(|_| bench.tailer.poll(bench.now, &mut bench.sink) != Progress::Read);
            assert!(rests, "the tailer does not come to rest");
            bench.restart();
        }
        bench.poll();
        bench.poll();
        let out: Vec<String> = (0..6).map(|at| format!("out {at} a b c")).collect();
        let err: Vec<String> = (0..6).flat_map(|at| [format!("err {at} whole"), format!("err {at}c d").replace("c d", " c d")]).collect();
        assert_eq!(
            (bench.of("stdout"), bench.of("stderr")),
            (out.iter().map(String::as_str).collect(), err.iter().map(String::as_str).collect())
        );
        assert_eq!(bench.sink.positions.values().next().unwrap().offset, text.len() as u64, "step {step}");
        bench.check_offsets();
    }
}

#[test]
fn a_sink_that_takes_one_output_and_refuses_the_other_gets_each_once() {
    let mut bench = Bench::of_containers("docker", |_| {});
    for at in 0..50 {
        bench.write("a.log", docker("stdout", &format!("out {at}\n")) + &docker("stderr", &format!("err {at}\n")));
    }
    // Room for the first record of each look only.
    for _ in 0..4 {
        bench.sink.room = Some(2);
        bench.now += SECOND;
        bench.tailer.poll(bench.now, &mut bench.sink);
        bench.restart();
    }
    bench.sink.room = None;
    bench.poll();
    assert_eq!((bench.of("stdout").len(), bench.of("stderr").len()), (50, 50));
    bench.check_offsets();
}

#[test]
fn events_of_several_lines_are_joined_within_their_output() {
    let mut bench = Bench::of_containers("docker", |source| source.multiline.preset = "java".into());
    bench.write("a.log", docker("stderr", "ERROR x\n") + &docker("stdout", "INFO 1\n") + &docker("stderr", "\tat y\n"));
    bench.write("a.log", docker("stdout", "INFO 2\n") + &docker("stderr", "\tat z\n"));
    bench.poll();
    bench.poll();
    assert_eq!((bench.of("stdout"), bench.of("stderr")), (vec!["INFO 1", "INFO 2"], vec!["ERROR x\n\tat y\n\tat z"]));
}

#[test]
fn a_line_of_too_many_parts_is_cut_once_also_over_a_restart() {
    let mut bench = Bench::of_containers("docker", |source| source.max_line_bytes = 256);
    for at in 0..5 {
        bench.write("a.log", docker("stdout", &"支".repeat(1000)) + &docker("stderr", &format!("{at}\n")));
        bench.poll();
        bench.restart();
    }
    bench.write("a.log", docker("stdout", "end\n") + &docker("stdout", "next\n"));
    bench.poll();
    assert_eq!(bench.of("stdout"), ["支".repeat(85).as_str(), "next"]);
    assert_eq!((bench.of("stderr"), bench.sink.truncated), (vec!["0", "1", "2", "3", "4"], 1));
}

#[test]
fn an_output_that_waits_does_not_hold_the_other_up() {
    let mut bench = Bench::of_containers("docker", |_| {});
    bench.write("a.log", docker("stdout", "never finished "));
    for at in 0..12_000 {
        bench.write("a.log", docker("stderr", &format!("{at:06}\n")));
    }
    bench.poll();
    bench.restart();
    bench.write("a.log", docker("stdout", "late\n") + &docker("stdout", "after\n"));
    bench.poll();
    assert_eq!(bench.of("stderr").len(), 12_000);
    bench.check_offsets();
    // So much lies between its parts that they are not seen together: it was cut, and the rest of it left out.
    assert_eq!(bench.of("stdout"), ["never finished ", "after"]);
}

#[test]
fn a_record_that_never_ends_is_no_record() {
    let mut bench = Bench::of_containers("docker", |source| source.max_line_bytes = 256);
    bench.write("a.log", docker("stdout", "a\n") + "{\"log\":\"" + &"x".repeat(2 << 20));
    bench.poll();
    bench.restart();
    bench.write("a.log", String::from("\"}\n") + &docker("stdout", "b\n"));
    bench.poll();
    let told = bench.of("stdout");
    assert_eq!((told.len(), told[0], told[1].len(), told[2]), (3, "a", 256, "b"));
}

#[test]
fn cri_parts_are_joined_and_its_text_may_be_gbk() {
    let mut bench = Bench::of_containers("cri", |source| source.encoding = "gbk".into());
    let head = b"2027-01-15T07:00:00.25Z stdout ";
    bench.write("a.log", [&head[..], b"P \xd6\xa7\n", head, b"F \xb8\xb6 ok\n", head, b"F \n"].concat());
    bench.poll();
    assert_eq!(bench.of("stdout"), ["支付 ok", ""]);
    assert_eq!(bench.sink.batches[0].lines[0].ts_ns, (1_800_000_000 - 3600) * SECOND + SECOND / 4);
}

#[test]
fn a_container_that_ends_gives_its_last_part() {
    let mut bench = Bench::of_containers("docker", |_| {});
    bench.write("a.log", docker("stdout", "whole\n") + &docker("stdout", "no end"));
    bench.poll();
    assert_eq!(bench.of("stdout"), ["whole"]);
    fs::remove_file(bench.path("a.log")).unwrap();
    for _ in 0..3 {
        bench.poll();
    }
    assert_eq!(bench.of("stdout"), ["whole", "no end"]);
    assert!(bench.sink.positions.is_empty());
}

#[test]
fn names_of_containers_are_labels_and_masked() {
    let mut bench = Bench::of_containers("docker", |source| source.labels = BTreeMap::from([("image".into(), "mine".into())]));
    fs::write(bench.path("config.v2.json"), r#"{"Name":"/buyer.wang@example.com","Config":{"Image":"theirs"}}"#).unwrap();
    bench.write("a.log", docker("stdout", "x\n"));
    bench.poll();
    let labels = &bench.sink.batches[0].labels;
    assert_eq!(labels.get("image"), Some("mine"), "what is configured stands over what comes from outside");
    assert!(labels.get("container").is_some_and(|name| !name.contains("wang")), "{labels:?}");
}

#[test]
fn metrics_count_what_the_sink_took_once() {
    let mut bench = Bench::of_containers("docker", |source| {
        source.parser.kind = "combined".into();
        source.metrics = vec![Metric { preset: "nginx".into(), ..Metric::default() }];
        source.sample = vec![Sample { keep: 0.0, ..Sample::default() }];
    });
    bench
        .write("a.log", docker("stdout", "1.2.3.4 - - [15/Jan/2027:07:00:00 +0000] \"GET / HTTP/1.1\" 200 5 \"-\" \"x\" 0.01\n").repeat(3));
    bench.sink.full = true;
    bench.poll();
    bench.poll();
    bench.sink.full = false;
    bench.poll();
    let mut requests = Vec::new();
    bench
        .tailer
        .metrics()
        .each(|name, labels, value| requests.extend((name == "nginx_http_requests_total").then_some((labels.len(), value))));
    assert_eq!((requests, bench.sink.lines.len()), (vec![(2, 3.0)], 0), "sampling changes no rate");
}
