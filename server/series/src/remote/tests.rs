use super::{
    wire::{put_bytes, put_double, put_number, put_varint},
    *,
};
use proptest::prelude::*;
use shipwatch_common::model::Sample;
use std::sync::Arc;

type Series<'a> = (Vec<(&'a str, &'a str)>, Vec<(i64, f64)>);

fn sample_message(ts: i64, value: f64) -> Vec<u8> {
    let mut sample = Vec::new();
    put_double(&mut sample, 1, value);
    put_number(&mut sample, 2, ts.cast_unsigned());
    sample
}

fn v1(all: &[Series<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    for (labels, samples) in all {
        let mut series = Vec::new();
        for (name, value) in labels {
            let mut label = Vec::new();
            put_bytes(&mut label, 1, name.as_bytes());
            put_bytes(&mut label, 2, value.as_bytes());
            put_bytes(&mut series, 1, &label);
        }
        for (ts, value) in samples {
            put_bytes(&mut series, 2, &sample_message(*ts, *value));
        }
        put_bytes(&mut out, 1, &series);
    }
    out
}

fn v2(all: &[Series<'_>]) -> Vec<u8> {
    let (mut symbols, mut series_out) = (vec![""], Vec::new());
    for (labels, samples) in all {
        let (mut series, mut references) = (Vec::new(), Vec::new());
        for text in labels.iter().flat_map(|(name, value)| [*name, *value]) {
            let at = symbols.iter().position(|known| *known == text).unwrap_or_else(|| {
                symbols.push(text);
                symbols.len() - 1
            });
            put_varint(&mut references, at as u64);
        }
        put_bytes(&mut series, 1, &references);
        for (ts, value) in samples {
            put_bytes(&mut series, 2, &sample_message(*ts, *value));
        }
        put_bytes(&mut series_out, 5, &series);
    }
    let mut out = Vec::new();
    for symbol in symbols {
        put_bytes(&mut out, 4, symbol.as_bytes());
    }
    out.extend(series_out);
    out
}

fn snap(message: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(message).unwrap()
}

fn shown(samples: &[Sample]) -> Vec<(String, i64, f64)> {
    samples.iter().map(|sample| (sample.labels.to_string(), sample.ts_ms, sample.value)).collect()
}

#[test]
fn both_versions_give_the_same_samples_and_known_series_are_shared() {
    let receiver = Receiver::new(ReceiveConfig::default());
    let all: &[Series<'_>] = &[
        (vec![("__name__", "up"), ("job", "node"), ("主机", "甲")], vec![(1_000, 1.0), (2_000, 0.0)]),
        (vec![("job", "node"), ("__name__", "up"), ("empty", ""), ("zone", "b")], vec![(1_000, -0.5)]),
    ];
    let expected = [
        ("up{job=\"node\",主机=\"甲\"}".to_owned(), 1_000, 1.0),
        ("up{job=\"node\",主机=\"甲\"}".to_owned(), 2_000, 0.0),
        ("up{job=\"node\",zone=\"b\"}".to_owned(), 1_000, -0.5),
    ];
    for (version, message) in [(Version::V1, v1(all)), (Version::V2, v2(all))] {
        let first = receiver.read(version, &snap(&message), 0).unwrap();
        let again = receiver.read(version, &snap(&message), 0).unwrap();
        assert_eq!(shown(&first.samples), expected, "{version:?}");
        assert_eq!(shown(&again.samples), expected, "{version:?}");
        assert!(first.samples.iter().zip(&again.samples).all(|(a, b)| Arc::ptr_eq(&a.labels, &b.labels)), "{version:?}");
    }
}

#[test]
fn a_series_with_wrong_labels_is_left_out_with_its_reason() {
    let receiver = Receiver::new(ReceiveConfig::default());
    for (labels, reason) in [
        (vec![("__name__", "a"), ("x", "1"), ("x", "2")], "series \"a\": label `x` is given twice"),
        (vec![("__name__", "a"), ("", "1")], "series \"a\": a label has an empty name"),
        (vec![("job", "a")], "a series has no metric name (label `__name__`)"),
        (vec![], "a series has no metric name (label `__name__`)"),
    ] {
        let message = v1(&[(labels, vec![(1, 1.0), (2, 1.0)]), (vec![("__name__", "good")], vec![(1, 1.0)])]);
        let written = receiver.read(Version::V1, &snap(&message), 0).unwrap();
        assert_eq!((written.refused, written.refusal.as_deref(), written.samples.len()), (2, Some(reason), 1));
    }
    let mut series = Vec::new();
    put_bytes(&mut series, 1, &[1 << 3 | 2, 8, b'_', b'_', b'n', b'a', b'm', b'e', b'_', b'_', 2 << 3 | 2, 1, 0xff]);
    put_bytes(&mut series, 2, &sample_message(1, 1.0));
    let mut message = Vec::new();
    put_bytes(&mut message, 1, &series);
    let written = receiver.read(Version::V1, &snap(&message), 0).unwrap();
    assert!(written.refusal.is_some_and(|reason| reason.ends_with("a label is not UTF-8")));
}

#[test]
fn one_replica_of_a_group_is_taken_without_its_label() {
    let receiver = Receiver::new(ReceiveConfig { ha: true, ..ReceiveConfig::default() });
    let from = |replica: &str, now_ms: i64| {
        let message = v1(&[
            (vec![("__name__", "up"), ("__replica__", replica), ("cluster", "eu")], vec![(now_ms, 1.0)]),
            (vec![("__name__", "alone")], vec![(now_ms, 1.0)]),
        ]);
        let written = receiver.read(Version::V1, &snap(&message), now_ms).unwrap();
        (shown(&written.samples).iter().map(|(labels, ..)| labels.clone()).collect::<Vec<_>>(), written.duplicates)
    };
    let both = (vec!["up{cluster=\"eu\"}".to_owned(), "alone".to_owned()], 0);
    let alone = (vec!["alone".to_owned()], 1);
    assert_eq!((from("a", 0), from("b", 1), from("a", 2)), (both.clone(), alone, both.clone()));
    assert_eq!(from("b", 40_000), both);
}

#[test]
fn bombs_and_wrong_tables_are_refused() {
    let receiver = Receiver::new(ReceiveConfig { max_decoded_bytes: 1 << 20, ..ReceiveConfig::default() });
    let read = |version, body: &[u8]| receiver.read(version, body, 0).map(|written| written.samples.len());
    let mut claim = Vec::new();
    put_varint(&mut claim, u64::from(u32::MAX));
    claim.extend([0, 0]);
    let limit = 1 << 20;
    assert_eq!(read(Version::V1, &claim), Err(RequestError::TooLarge { what: "decompressed bytes", limit }));
    let zeros = snap(&vec![0; (1 << 20) + 1]);
    assert_eq!(read(Version::V1, &zeros), Err(RequestError::TooLarge { what: "decompressed bytes", limit }));
    assert!(matches!(read(Version::V1, b"\x05abc"), Err(RequestError::Snappy(_))));
    assert_eq!(read(Version::V1, &snap(b"\x0a\x05abc")), Err(RequestError::Malformed));
    let table = |symbols: &[&[u8]], references: &[u8]| {
        let (mut message, mut series) = (Vec::new(), Vec::new());
        symbols.iter().for_each(|symbol| put_bytes(&mut message, 4, symbol));
        put_bytes(&mut series, 1, references);
        put_bytes(&mut series, 2, &sample_message(1, 1.0));
        put_bytes(&mut message, 5, &series);
        read(Version::V2, &snap(&message))
    };
    assert_eq!(table(&[b"", b"__name__", b"up"], &[1, 2]), Ok(1));
    assert_eq!(table(&[b"", b"__name__", b"up"], &[1, 3]), Err(RequestError::Symbols("a reference points outside the symbols")));
    assert_eq!(table(&[b"", b"__name__", b"up"], &[1]), Err(RequestError::Symbols("the label references of a series are not pairs")));
    assert_eq!(table(&[b"__name__", b"up"], &[0, 1]), Err(RequestError::Symbols("the first of the symbols must be the empty text")));
}

#[test]
fn metadata_histograms_and_exemplars_are_told_apart() {
    let receiver = Receiver::new(ReceiveConfig::default());
    let (mut message, mut metadata, mut series) = (v1(&[(vec![("__name__", "up")], vec![(1, 1.0)])]), Vec::new(), Vec::new());
    put_number(&mut metadata, 1, 1);
    put_bytes(&mut metadata, 2, b"requests_total");
    put_bytes(&mut metadata, 4, b"Requests.");
    put_bytes(&mut message, 3, &metadata);
    put_bytes(&mut series, 3, b"");
    put_bytes(&mut series, 4, b"");
    put_bytes(&mut message, 1, &series);
    let written = receiver.read(Version::V1, &snap(&message), 0).unwrap();
    let description = Description { kind: "counter", help: "Requests.".to_owned(), unit: String::new() };
    assert_eq!(written.metadata, [("requests_total".to_owned(), description)]);
    assert_eq!((written.samples.len(), written.histograms, written.exemplars), (1, 1, 1));
}

proptest! {
    #[test]
    fn random_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..400), cut in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let receiver = Receiver::new(ReceiveConfig { ha: true, ..ReceiveConfig::default() });
        for version in [Version::V1, Version::V2] {
            let _ = receiver.read(version, &bytes, 0);
            let _ = receiver.read(version, &snap(&bytes), 0);
        }
        // Nearly right ones reach further.
        let all: &[Series<'_>] = &[(vec![("__name__", "up"), ("cluster", "a"), ("__replica__", "b")], vec![(1, 1.0), (2, 2.0)])];
        for (version, message) in [(Version::V1, v1(all)), (Version::V2, v2(all))] {
            let mut message = message;
            let at = cut.index(message.len());
            message[at] = byte;
            let _ = receiver.read(version, &snap(&message), 0);
            message.truncate(at);
            message.append(&mut bytes);
            let _ = receiver.read(version, &snap(&message), 0);
        }
    }
}
