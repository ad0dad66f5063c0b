//! Pipes, from the command's side.

use super::*;
use crate::tail::{PipeError, pipe::client};
use std::io::{Cursor, Read};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::UnixStream,
};

fn running(change: impl FnOnce(&mut Source)) -> Running {
    Running::new(|_| {
        let mut source = Source { pipe: "backup".into(), labels: BTreeMap::from([("app".into(), "backup".into())]), ..Source::default() };
        change(&mut source);
        source
    })
}

/// Standard input that a test writes.
struct Input(std::sync::mpsc::Receiver<Vec<u8>>);

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Ok(piece) = self.0.recv() else { return Ok(0) };
        buffer[..piece.len()].copy_from_slice(&piece);
        Ok(piece.len())
    }
}

type Command = JoinHandle<Result<(), PipeError>>;

impl Running {
    fn pipe(&self, source: &'static str, input: impl Read + Send + 'static) -> Command {
        let socket = self.socket();
        tokio::spawn(async move { client::run(&socket, source, input, |_| {}).await })
    }

    fn input(&self) -> (std::sync::mpsc::Sender<Vec<u8>>, Command) {
        let (sender, receiver) = std::sync::mpsc::channel();
        (sender, self.pipe("backup", Input(receiver)))
    }
}

async fn ended(command: Command) -> Result<(), PipeError> {
    tokio::time::timeout(DEADLINE, command).await.expect("it ends").unwrap()
}

#[tokio::test]
async fn lines_are_masked_and_durable_when_the_command_ends() {
    let mut running = running(|_| {});
    running.start();
    ended(running.pipe("backup", Cursor::new("one\nto buyer.wang@example.com\nno end"))).await.unwrap();
    let texts = running.texts();
    assert_eq!((texts.len(), texts[0].as_str(), texts[2].as_str()), (3, "one", "no end"));
    assert!(!texts[1].contains("wang"));
    assert_eq!(running.label("one", "app").as_deref(), Some("backup"));
    ended(running.pipe("backup", Cursor::new(""))).await.unwrap();
    let mode = fs::metadata(running.socket()).unwrap().mode();
    assert_eq!(mode & 0o777, 0o600);
    running.stop().await;
    assert!(!running.socket().try_exists().unwrap());
}

#[tokio::test]
async fn restarts_of_the_agent_lose_and_double_nothing() {
    let mut running = running(|_| {});
    let (input, command) = running.input();
    let mut expected = Vec::new();
    for round in 0..4 {
        input.send(format!("{round} first\n{round} halfway").into_bytes()).unwrap();
        running.start();
        expected.push(format!("{round} first"));
        running.has(expected.len()).await;
        running.stop().await;
        input.send(b" through\n".to_vec()).unwrap();
        expected.push(format!("{round} halfway through"));
    }
    running.start();
    drop(input);
    ended(command).await.unwrap();
    assert_eq!(running.texts(), expected);
    let offsets: Vec<u64> = running.lines().iter().map(|line| line.end_offset).collect();
    assert!(offsets.is_sorted_by(|a, b| a < b) && offsets[7] == 4 * (8 + 18), "{offsets:?}");
    running.stop().await;
}

#[tokio::test]
async fn a_connection_that_broke_goes_on_behind_what_the_agent_has() {
    let mut running = running(|_| {});
    running.start();
    until(|| running.socket().try_exists().unwrap(), || "the socket".to_owned()).await;
    let life = uuid::Uuid::now_v7();
    for (text, from) in [("one\n", 0), ("two\n", 4), ("", 8)] {
        let stream = UnixStream::connect(running.socket()).await.unwrap();
        let (reader, mut writer) = stream.into_split();
        writer.write_all(format!("shipwatch-pipe 1 backup {life}\n{text}").as_bytes()).await.unwrap();
        writer.shutdown().await.unwrap();
        let mut answers = String::new();
        BufReader::new(reader).read_to_string(&mut answers).await.unwrap();
        let expected = if text.is_empty() { format!("{from}\n") } else { format!("{from}\n{}\n", from + 4) };
        assert_eq!(answers, expected);
    }
    assert_eq!(running.texts(), ["one", "two"]);
    running.stop().await;
}

#[tokio::test]
async fn a_full_sink_makes_the_writer_wait() {
    let mut running = running(|_| {});
    running.set_full(true);
    running.start();
    let text: String = (0..100_000).map(|at| format!("line {at:06} of many\n")).collect();
    let command = running.pipe("backup", Cursor::new(text));
    until(|| running.count(|c| &c.blocked_streams) == 1, || "it to wait".to_owned()).await;
    assert!(!command.is_finished() && running.lines().is_empty());
    running.set_full(false);
    ended(command).await.unwrap();
    let texts = running.texts();
    assert_eq!((texts.len(), texts[99_999].as_str()), (100_000, "line 099999 of many"));
    assert!(texts.is_sorted());
    running.stop().await;
}

#[tokio::test]
async fn events_of_several_lines_end_with_time() {
    let mut running = running(|source| {
        source.multiline.preset = "java".into();
        source.multiline.wait = Duration::from_millis(100);
    });
    running.start();
    let (input, command) = running.input();
    input.send(b"ERROR x\n\tat y\n".to_vec()).unwrap();
    running.has(1).await;
    assert_eq!(running.texts(), ["ERROR x\n\tat y"]);
    drop(input);
    ended(command).await.unwrap();
    running.stop().await;
}

#[tokio::test]
async fn names_that_nobody_configured_are_refused() {
    let mut running = running(|_| {});
    running.start();
    until(|| running.socket().try_exists().unwrap(), || "the socket".to_owned()).await;
    let error = ended(running.pipe("other", Cursor::new("x\n"))).await.unwrap_err().to_string();
    assert!(error.contains("pipe = \"other\""), "{error}");
    let error = ended(running.pipe("../x", Cursor::new(""))).await.unwrap_err();
    assert!(matches!(error, PipeError::Name(_)));
    running.stop().await;
}
