//! A thousand agents on one server: real enrolment, real QUIC, all ticking at the same moments, and not a sample lost or doubled.

use shipwatch_benches::{
    fleet,
    process::{self, Programs, Surroundings},
};
use std::{ffi::OsString, time::Duration};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_agents_lose_and_double_nothing() {
    process::raise_open_files().unwrap();
    let surroundings = Surroundings { path: OsString::from("/usr/bin:/bin"), cargo: OsString::from(env!("CARGO")) };
    let programs = Programs::find(&surroundings).unwrap();
    let options = fleet::Options {
        agents: 1_000,
        // What is asked is the number of agents; a full host's series are for the bench.
        series: 64,
        length: Duration::from_secs(15),
        interval: Duration::from_secs(3),
        paced: true,
        window: 4,
    };
    let report = fleet::run(&options, &programs).await.unwrap();
    assert!(report.is_good(), "{}", report.to_text());
    let samples = report.value("samples").unwrap();
    assert!(samples >= 1_000.0 * 64.0 * 4.0, "{samples} samples: the agents did not keep their pace\n{}", report.to_text());
}
