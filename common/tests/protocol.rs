//! The wire: round trips, bounds, and the golden bytes of every version.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::prelude::*;
use shipwatch_common::{
    model::{AgentId, FileId, HostFacts, Labels, LogBatch, LogLine, Severity},
    protocol::{
        AgentMessage, EnrolAnswer, EnrolRequest, FrameError, FrameReader, Hello, Lane, LaneMark, LaneMessage, LaneOpen, LaneState,
        MetricsBatch, ServerMessage, SnapshotDecoder, SnapshotEncoder, Welcome, decode, encode, encode_frame,
        frame::{HEADER_BYTES, MAX_RAW_BYTES, MAX_WIRE_BYTES, Message},
        message::LaneBody,
    },
};
use std::sync::Arc;

fn labels(pairs: &[(&str, &str)]) -> Labels {
    Labels::new(pairs.iter().copied()).unwrap()
}

fn facts() -> HostFacts {
    HostFacts {
        hostname: "web-1".into(),
        os: "Debian GNU/Linux 12".into(),
        kernel: "6.1.0".into(),
        arch: "x86_64".into(),
        agent_version: "0.1.0".into(),
        cpus: 2,
        memory_bytes: 8 << 30,
        boot_time_s: 1_763_000_000,
    }
}

/// One of each message, as raw (uncompressed) bytes: zstd's output may differ between its versions, the meaning may not.
fn samples() -> Vec<(&'static str, Vec<u8>)> {
    let lanes = vec![LaneState { lane: Lane::Logs, generations: vec![3, 9], pending_bytes: 1000 }];
    let batch = LogBatch {
        file: FileId(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff),
        labels: labels(&[("filename", "/var/log/a.log")]),
        lines: vec![LogLine {
            ts_ns: 1_763_884_800_000_000_000,
            end_offset: 12,
            severity: Severity::Error,
            truncated: false,
            text: "支付失败 [phone]".into(),
        }],
    };
    let bytes = |value: Vec<u8>| value;
    vec![
        (
            "hello",
            bytes(
                encode(&AgentMessage::Hello(Box::new(Hello {
                    oldest_version: 1,
                    version: 1,
                    facts: facts(),
                    deploys_allowed: false,
                    lanes: lanes.clone(),
                    now_ms: 1_763_884_800_000,
                })))
                .unwrap(),
            ),
        ),
        ("status", encode(&AgentMessage::Status { now_ms: 1_763_884_800_000, lanes }).unwrap()),
        ("renew", encode(&AgentMessage::Renew { csr_der: vec![1, 2, 3] }).unwrap()),
        ("goodbye", encode(&AgentMessage::Goodbye { reason: "stopped".into() }).unwrap()),
        ("agent_refused", encode(&AgentMessage::Refused { what: "deploy".into() }).unwrap()),
        (
            "welcome",
            encode(&ServerMessage::Welcome(Welcome {
                version: 1,
                name: "web-1".into(),
                marks: vec![LaneMark { lane: Lane::Metrics, generation: 9, seq: 70000 }],
                now_ms: 1_763_884_800_000,
            }))
            .unwrap(),
        ),
        ("server_refused", encode(&ServerMessage::Refused { reason: "revoked".into() }).unwrap()),
        ("ack", encode(&ServerMessage::Ack(LaneMark { lane: Lane::Events, generation: 9, seq: 5 })).unwrap()),
        ("command", encode(&ServerMessage::Command { json: "{}".into() }).unwrap()),
        ("certificate", encode(&ServerMessage::Certificate { chain_der: vec![vec![1], vec![2]] }).unwrap()),
        ("lane_open", encode(&LaneOpen { lane: Lane::Logs }).unwrap()),
        (
            "lane_metrics",
            encode(&LaneMessage {
                generation: 9,
                seq: 1,
                body: LaneBody::Metrics { ts_ms: 1_763_884_800_000, new_series: vec![labels(&[("__name__", "up")])], body: vec![2, 16] },
            })
            .unwrap(),
        ),
        ("lane_logs", encode(&LaneMessage { generation: 9, seq: 2, body: LaneBody::Logs(encode(&batch).unwrap()) }).unwrap()),
        ("lane_event", encode(&LaneMessage { generation: 9, seq: 3, body: LaneBody::Event("{}".into()) }).unwrap()),
        ("enrol", encode(&EnrolRequest { secret: vec![5; 24], csr_der: vec![1, 2], name: "web-1".into(), facts: facts() }).unwrap()),
        ("enrol_accepted", encode(&EnrolAnswer::Accepted { chain_der: vec![vec![1]], name: "web-1".into() }).unwrap()),
        ("enrol_refused", encode(&EnrolAnswer::Refused { reason: "expired".into() }).unwrap()),
        (
            "metrics_batch",
            encode(&MetricsBatch { ts_ms: 1_763_884_800_000, samples: vec![(Arc::new(labels(&[("__name__", "up")])), 1.0)] }).unwrap(),
        ),
    ]
}

/// A changed line here breaks agents in the field: make a new protocol version and a new golden file instead.
#[test]
fn version_1_bytes_are_what_they_were() {
    let text: String = samples().iter().map(|(name, bytes)| format!("{name} {}\n", shipwatch_common::identity::hex(bytes))).collect();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/protocol-v1.hex");
    let golden = std::fs::read_to_string(path).unwrap_or_default();
    assert!(text == golden, "the bytes of protocol version 1 changed; now they are:\n{text}");
}

fn round_trip<M: Message + PartialEq + std::fmt::Debug>(message: &M) {
    let frame = encode_frame(message).unwrap();
    let mut reader = FrameReader::default();
    for byte in &frame[..frame.len() - 1] {
        reader.push(std::slice::from_ref(byte));
        assert!(reader.take::<M>().unwrap().is_none());
    }
    assert!(reader.is_mid_frame());
    reader.push(&frame[frame.len() - 1..]);
    reader.push(&frame);
    assert_eq!(&reader.take::<M>().unwrap().unwrap(), message);
    assert_eq!(&reader.take::<M>().unwrap().unwrap(), message);
    assert!(!reader.is_mid_frame());
}

#[test]
fn frames_survive_any_cut() {
    round_trip(&ServerMessage::Command { json: "x".repeat(1000) });
    round_trip(&LaneMessage { generation: 1, seq: 2, body: LaneBody::Event("{}".into()) });
}

#[test]
fn bounds_are_checked_before_anything_is_allocated() {
    let mut header = vec![0u8; HEADER_BYTES];
    header[4] = 1;
    header[5] = LaneOpen::KIND;
    let attempt = |header: &[u8]| {
        let mut reader = FrameReader::default();
        reader.push(header);
        reader.take::<LaneOpen>().unwrap_err()
    };
    header[..4].copy_from_slice(&u32::try_from(MAX_WIRE_BYTES + 1).unwrap().to_be_bytes());
    assert!(matches!(attempt(&header), FrameError::TooLarge { .. }));
    header[..4].copy_from_slice(&1u32.to_be_bytes());
    header[6..].copy_from_slice(&u32::try_from(MAX_RAW_BYTES + 1).unwrap().to_be_bytes());
    assert!(matches!(attempt(&header), FrameError::TooLarge { .. }));
    header[6..].copy_from_slice(&1u32.to_be_bytes());
    header[4] = 9;
    assert_eq!(attempt(&header), FrameError::Version(9));
    header[4] = 1;
    header[5] = 77;
    assert!(matches!(attempt(&header), FrameError::Kind { found: 77, .. }));
    // A body that claims to be small and unpacks to more is refused by its announced size.
    let bomb = zstd::bulk::compress(&vec![0u8; 1 << 20], 3).unwrap();
    header[5] = LaneOpen::KIND;
    header[..4].copy_from_slice(&u32::try_from(bomb.len()).unwrap().to_be_bytes());
    header.extend_from_slice(&bomb);
    assert!(matches!(attempt(&header), FrameError::Decode(_)));
    // A list that claims 2^60 entries.
    let lie = [&[1u8, 253][..], &(1u64 << 60).to_le_bytes()].concat();
    assert!(decode::<AgentMessage>(&lie).is_err());
}

fn value() -> impl Strategy<Value = f64> {
    prop_oneof![
        any::<u64>().prop_map(f64::from_bits),
        (-1_000_000_000i64..1_000_000_000, 0..4i32).prop_map(|(whole, scale)| whole as f64 / 10f64.powi(scale)),
        Just(0.0),
        Just(-0.0),
        Just(f64::from_bits(shipwatch_common::model::metric::STALE_NAN_BITS)),
    ]
}

proptest! {
    #[test]
    fn snapshots_give_back_the_same_bits(ticks in prop::collection::vec(prop::collection::btree_map(0..30u32, value(), 0..30), 1..12)) {
        let mut encoder = SnapshotEncoder::default();
        let mut decoder = SnapshotDecoder::<Labels>::default();
        for (at, tick) in ticks.into_iter().enumerate() {
            let batch = MetricsBatch {
                ts_ms: at as i64,
                samples: tick.iter().map(|(id, value)| (Arc::new(labels(&[("__name__", "m"), ("id", &id.to_string())])), *value)).collect(),
            };
            let (new_series, body) = encoder.encode(&batch);
            let mut decoded: Vec<(Labels, u64)> = decoder.decode(new_series, &body).unwrap().into_iter().map(|(l, v)| (l, v.to_bits())).collect();
            let mut expected: Vec<(Labels, u64)> = batch.samples.iter().map(|(l, v)| (l.as_ref().clone(), v.to_bits())).collect();
            decoded.sort();
            expected.sort();
            prop_assert_eq!(decoded, expected);
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600), series in 0..20usize) {
        let mut reader = FrameReader::default();
        reader.push(&bytes);
        let _outcome = reader.take::<LaneMessage>();
        let _outcome = decode::<ServerMessage>(&bytes);
        let _outcome = decode::<MetricsBatch>(&bytes);
        let mut decoder = SnapshotDecoder::<u8>::default();
        let _outcome = decoder.decode(vec![0; series], &bytes);
        let _outcome = String::from_utf8_lossy(&bytes).parse::<AgentId>();
    }
}
