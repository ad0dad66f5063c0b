//! Reading a day file: see `day` for what it holds.

use super::{
    day::{MIGRATIONS, WINDOW_BITS, block, window_in, window_start},
    group,
    index_file::IndexReader,
    part::Piece,
};
use crate::error::Error;
use rusqlite::{OptionalExtension as _, params};
use std::path::Path;

/// A day file opened for reading, by one query at a time.
#[derive(Debug)]
pub(crate) struct DayReader {
    pub(crate) index: IndexReader,
}

impl DayReader {
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        Ok(Self { index: IndexReader::open(path, MIGRATIONS)? })
    }

    /// See [`IndexReader::at_once`].
    pub(crate) fn at_once<T>(&self, read: impl FnOnce(&Self) -> Result<T, Error>) -> Result<T, Error> {
        self.index.at_once(|| read(self))
    }

    /// See [`IndexReader::check`].
    pub(crate) fn check(&self) -> Result<(), Error> {
        self.index.check(&["pairs", "series", "chunks", "groups"])
    }

    /// Chunks of series that overlap `[t0, t1]`, in the order of the series, which grow. `damaged` is told of groups that cannot
    /// be read.
    pub(crate) fn chunks(
        &self,
        series: &[u32],
        day: i64,
        (t0, t1): (i64, i64),
        damaged: &mut dyn FnMut(&'static str),
    ) -> Result<Vec<Vec<Piece>>, Error> {
        let mut all = self.old_chunks(series, day, t0, t1)?;
        let mut read =
            self.index.connection.prepare("SELECT key, body FROM groups WHERE key BETWEEN ?1 AND ?2").map_err(self.index.wrong())?;
        let mut from = 0;
        while let Some(first) = series.get(from) {
            let group = first / group::SERIES;
            let to = from + series[from..].partition_point(|id| id / group::SERIES == group);
            let places: Vec<u8> = series[from..to].iter().map(|id| (id % group::SERIES) as u8).collect();
            let key = i64::from(group) << WINDOW_BITS;
            let mut rows = read.query([key | window_in(day, t0), key | window_in(day, t1)]).map_err(self.index.wrong())?;
            while let Some(row) = rows.next().map_err(self.index.wrong())? {
                let key = row.get(0).map_err(self.index.wrong())?;
                let body = row.get_ref(1).and_then(|body| Ok(body.as_blob()?)).map_err(self.index.wrong())?;
                match group::decode(window_start(day, key), body, |place| places.binary_search(&place).is_ok()) {
                    Ok(chunks) => {
                        for (place, block) in chunks.into_iter().filter(|(_, block)| block.t0 <= t1 && block.t1 >= t0) {
                            if let Ok(at) = places.binary_search(&place) {
                                all[from + at].push(Piece::Block(block));
                            }
                        }
                    }
                    Err(reason) => damaged(reason),
                }
            }
            from = to;
        }
        Ok(all)
    }

    /// Chunks of format 1.
    fn old_chunks(&self, series: &[u32], day: i64, t0: i64, t1: i64) -> Result<Vec<Vec<Piece>>, Error> {
        let any = self.index.connection.query_row("SELECT 1 FROM chunks LIMIT 1", [], |_| Ok(())).optional().map_err(self.index.wrong())?;
        if any.is_none() {
            return Ok(vec![Vec::new(); series.len()]);
        }
        let sql = "SELECT t0, t1, n, body FROM chunks WHERE key BETWEEN ?1 AND ?2 AND t0 <= ?4 AND t1 >= ?3 ORDER BY key";
        let mut read = self.index.connection.prepare(sql).map_err(self.index.wrong())?;
        let mut all = Vec::with_capacity(series.len());
        for id in series {
            let key = i64::from(*id) << WINDOW_BITS;
            let keys = params![key | window_in(day, t0), key | window_in(day, t1), t0, t1];
            let rows = read.query_map(keys, block).map_err(self.index.wrong())?;
            let blocks: rusqlite::Result<Vec<Piece>> = rows.map(|row| row.map(Piece::Block)).collect();
            all.push(blocks.map_err(self.index.wrong())?);
        }
        Ok(all)
    }
}
