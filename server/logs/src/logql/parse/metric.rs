//! Metric queries: functions over ranges, aggregations, arithmetic.

use super::{DEPTH, Result};
use crate::{
    logql::{
        ast::{
            Aggregate, AggregateOp, Binary, BinaryOp, Comparison, Conversion, Grouping, LabelReplace, Matching, Metric, Range, RangeOp,
            Stage, Unwrap,
        },
        units,
    },
    query::{matcher::compile, scan::Scanner},
};

/// Longest range and offset: 100 years.
const RANGE_NS: f64 = 3.2e18;

/// Functions of Loki that are refused by their names.
const REFUSED: [&str; 5] = ["rate_counter", "approx_topk", "variants", "count_values", "first_value"];

impl Scanner<'_> {
    /// An expression whose operators bind at least as tight as `rank`.
    pub(super) fn metric(&mut self, rank: u8, depth: usize) -> Result<Metric> {
        if depth > DEPTH {
            return Err(self.error(self.at, format!("nested deeper than {DEPTH}")));
        }
        let mut left = self.operand(depth)?;
        loop {
            self.space();
            let start = self.at;
            let Some(op) = self.binary_op().filter(|op| op.rank() >= rank.max(1)) else {
                self.at = start;
                return Ok(left);
            };
            self.count()?;
            let returns_bool = self.word("bool");
            if returns_bool && !matches!(op, BinaryOp::Compare(_)) {
                return Err(self.error(start, format!("`bool` belongs to comparisons, not to `{}`", op.sign())));
            }
            let matching = self.matching()?;
            let next = if op == BinaryOp::Power { op.rank() } else { op.rank() + 1 };
            let right_at = self.at;
            let right = self.metric(next, depth + 1)?;
            let is_scalar = |metric: &Metric| matches!(metric, Metric::Number(_));
            if op.is_set() && (is_scalar(&left) || is_scalar(&right)) {
                return Err(self.error(right_at, format!("`{}` joins vectors, not numbers", op.sign())));
            }
            left = match (&left, &right, op) {
                // Numbers are worked out at once, as Loki does; a comparison of numbers gives 1 or 0.
                (Metric::Number(a), Metric::Number(b), op) => Metric::Number(crate::logql::binary::arithmetic(op, *a, *b)),
                _ => Metric::Binary(Box::new(Binary { op, left, right, returns_bool, matching })),
            };
        }
    }

    fn binary_op(&mut self) -> Option<BinaryOp> {
        let signs = [
            ("==", BinaryOp::Compare(Comparison::Equal)),
            ("!=", BinaryOp::Compare(Comparison::NotEqual)),
            (">=", BinaryOp::Compare(Comparison::GreaterOrEqual)),
            ("<=", BinaryOp::Compare(Comparison::LessOrEqual)),
            (">", BinaryOp::Compare(Comparison::Greater)),
            ("<", BinaryOp::Compare(Comparison::Less)),
            ("+", BinaryOp::Add),
            ("-", BinaryOp::Subtract),
            ("*", BinaryOp::Multiply),
            ("/", BinaryOp::Divide),
            ("%", BinaryOp::Modulo),
            ("^", BinaryOp::Power),
        ];
        if let Some((_, op)) = signs.into_iter().find(|(sign, _)| self.take(sign)) {
            return Some(op);
        }
        let words = [("or", BinaryOp::Or), ("and", BinaryOp::And), ("unless", BinaryOp::Unless)];
        words.into_iter().find(|(word, _)| self.word(word)).map(|(_, op)| op)
    }

    fn matching(&mut self) -> Result<Option<Matching>> {
        let on = self.word("on");
        if !on && !self.word("ignoring") {
            return Ok(None);
        }
        let names = self.label_names()?;
        self.space();
        let at = self.at;
        for word in ["group_left", "group_right"] {
            if self.word(word) {
                return Err(self.error(at, format!("`{word}` is not supported; only one-to-one matching is")));
            }
        }
        Ok(Some(Matching { on, names }))
    }

    /// `(a, b)`.
    fn label_names(&mut self) -> Result<Vec<String>> {
        if !self.take("(") {
            return Err(self.expected("`(`"));
        }
        let mut names = Vec::new();
        while !self.take(")") {
            self.count()?;
            names.push(self.name().ok_or_else(|| self.expected("a label's name or `)`"))?);
            if !self.take(",") {
                self.space();
                if self.peek() != Some(')') {
                    return Err(self.expected("`,` or `)`"));
                }
            }
        }
        Ok(names)
    }

    fn operand(&mut self, depth: usize) -> Result<Metric> {
        self.space();
        let at = self.at;
        match self.peek() {
            Some('(') => {
                self.take("(");
                let inner = self.metric(0, depth + 1)?;
                if self.take(")") { Ok(inner) } else { Err(self.expected("`)` or an operator")) }
            }
            Some(c) if c.is_ascii_digit() || matches!(c, '.' | '-' | '+') => {
                let shown = self.literal();
                units::number(&shown).map(Metric::Number).ok_or_else(|| self.error(at, format!("`{shown}` is not a number")))
            }
            Some('{') => Err(self.error(at, "a log query stands alone; to count its lines write count_over_time({…}[5m])")),
            _ => {
                self.count()?;
                let name = self.name().ok_or_else(|| self.expected("a function, a number or `(`"))?;
                self.call(&name, at, depth)
            }
        }
    }

    fn call(&mut self, name: &str, at: usize, depth: usize) -> Result<Metric> {
        if let Some(op) = range_op(name) {
            return self.range(op, at);
        }
        if REFUSED.contains(&name) {
            return Err(self.error(at, format!("`{name}` is not supported; docs/logql.md lists what is")));
        }
        match name {
            "sum" | "avg" | "min" | "max" | "count" | "stddev" | "stdvar" | "topk" | "bottomk" => self.aggregate(name, depth),
            "sort" | "sort_desc" => {
                self.open()?;
                let inner = Box::new(self.metric(0, depth + 1)?);
                self.close()?;
                Ok(Metric::Sort { descending: name == "sort_desc", inner })
            }
            "vector" => {
                self.open()?;
                self.space();
                let at = self.at;
                let Metric::Number(value) = self.metric(0, depth + 1)? else { return Err(self.error(at, "`vector` takes a number")) };
                self.close()?;
                Ok(Metric::Vector(value))
            }
            "label_replace" => self.label_replace(depth),
            _ => Err(self.error(at, format!("the function `{name}` is not known; docs/logql.md lists all"))),
        }
    }

    fn open(&mut self) -> Result<()> {
        if self.take("(") { Ok(()) } else { Err(self.expected("`(`")) }
    }

    fn close(&mut self) -> Result<()> {
        if self.take(")") { Ok(()) } else { Err(self.expected("`)`")) }
    }

    fn comma(&mut self) -> Result<()> {
        if self.take(",") { Ok(()) } else { Err(self.expected("`,`")) }
    }

    fn grouping(&mut self) -> Result<Option<Grouping>> {
        let without = self.word("without");
        if !without && !self.word("by") {
            return Ok(None);
        }
        Ok(Some(Grouping { without, names: self.label_names()? }))
    }

    fn aggregate(&mut self, name: &str, depth: usize) -> Result<Metric> {
        let before = self.grouping()?;
        self.open()?;
        let op = match name {
            "topk" | "bottomk" => {
                self.space();
                let at = self.at;
                let shown = self.literal();
                let count = shown.parse::<usize>().ok().filter(|count| *count > 0);
                let count = count.ok_or_else(|| self.error(at, format!("`{name}` takes a whole number above 0 first, not `{shown}`")))?;
                self.comma()?;
                if name == "topk" { AggregateOp::Top(count) } else { AggregateOp::Bottom(count) }
            }
            "sum" => AggregateOp::Sum,
            "avg" => AggregateOp::Avg,
            "min" => AggregateOp::Min,
            "max" => AggregateOp::Max,
            "count" => AggregateOp::Count,
            "stddev" => AggregateOp::StdDev,
            _ => AggregateOp::StdVar,
        };
        let inner = self.metric(0, depth + 1)?;
        if matches!(inner, Metric::Number(_)) {
            return Err(self.error(self.at, format!("`{name}` aggregates a vector, not a number")));
        }
        self.close()?;
        self.space();
        let at = self.at;
        let after = self.grouping()?;
        if before.is_some() && after.is_some() {
            return Err(self.error(at, "the grouping is given twice"));
        }
        Ok(Metric::Aggregate(Box::new(Aggregate { op, grouping: before.or(after), inner })))
    }

    fn label_replace(&mut self, depth: usize) -> Result<Metric> {
        self.open()?;
        let inner = self.metric(0, depth + 1)?;
        let mut texts = Vec::new();
        let mut at = self.at;
        for _ in 0..4 {
            self.comma()?;
            self.space();
            at = self.at;
            texts.push(self.string()?);
        }
        self.close()?;
        let mut texts = texts.into_iter();
        let mut next = || texts.next().unwrap_or_default();
        let (to, replacement, from, pattern) = (next(), next(), next(), next());
        let regex = compile(&format!("^(?s:{pattern})$")).map_err(|wrong| self.error(at, format!("the pattern is wrong: {wrong}")))?;
        Ok(Metric::LabelReplace(Box::new(LabelReplace { inner, to, replacement, from, pattern, regex })))
    }

    fn range(&mut self, op: RangeOp, at: usize) -> Result<Metric> {
        self.open()?;
        let op = match op {
            RangeOp::Quantile(_) => {
                self.space();
                let at = self.at;
                let shown = self.literal();
                let quantile = units::number(&shown)
                    .ok_or_else(|| self.error(at, format!("`quantile_over_time` takes a number first, not `{shown}`")))?;
                self.comma()?;
                RangeOp::Quantile(quantile)
            }
            op => op,
        };
        let mut range = self.log_range(op)?;
        self.close()?;
        let needs = matches!(op, RangeOp::Sum | RangeOp::Avg | RangeOp::Min | RangeOp::Max | RangeOp::First | RangeOp::Last)
            || matches!(op, RangeOp::StdDev | RangeOp::StdVar | RangeOp::Quantile(_));
        let refuses = matches!(op, RangeOp::Count | RangeOp::BytesOverTime | RangeOp::BytesRate);
        match &range.unwrap {
            None if needs => return Err(self.error(at, format!("invalid aggregation {} without unwrap", op.name()))),
            Some(_) if refuses => return Err(self.error(at, format!("invalid aggregation {} with unwrap", op.name()))),
            _ => {}
        }
        self.space();
        let at = self.at;
        range.grouping = self.grouping()?;
        let groups = matches!(op, RangeOp::Avg | RangeOp::Min | RangeOp::Max | RangeOp::First | RangeOp::Last)
            || matches!(op, RangeOp::StdDev | RangeOp::StdVar | RangeOp::Quantile(_));
        if range.grouping.is_some() && !groups {
            return Err(self.error(at, format!("grouping not allowed for {} aggregation", op.name())));
        }
        Ok(Metric::Range(Box::new(range)))
    }

    /// `{…} | … [5m] offset 1h`; the range may also stand before the stages.
    fn log_range(&mut self, op: RangeOp) -> Result<Range> {
        let parentheses = std::iter::from_fn(|| self.take("(").then_some(())).take(DEPTH).count();
        let mut pipeline = self.pipeline()?;
        let mut unwrap = None;
        let mut window = self.window()?;
        if window.is_some() {
            while let Some(stage) = self.stage()? {
                pipeline.stages.push(stage);
            }
        }
        self.space();
        if self.rest().starts_with('|') {
            unwrap = Some(self.unwrap()?);
        }
        (0..parentheses).try_for_each(|_| self.close())?;
        if window.is_none() {
            window = self.window()?;
        }
        let Some((range_ns, offset_ns)) = window else { return Err(self.expected("a range such as [5m]")) };
        Ok(Range { op, pipeline, unwrap, range_ns, offset_ns, grouping: None })
    }

    /// `[5m] offset 1h`.
    fn window(&mut self) -> Result<Option<(i64, i64)>> {
        if !self.take("[") {
            return Ok(None);
        }
        let range_ns = self.duration()?;
        if range_ns <= 0 {
            return Err(self.error(self.at, "the range must be longer than nothing"));
        }
        self.space();
        if self.peek() == Some(':') {
            return Err(self.error(self.at, "subqueries are not supported"));
        }
        if !self.take("]") {
            return Err(self.expected("`]`"));
        }
        let offset_ns = if self.word("offset") { self.duration()? } else { 0 };
        Ok(Some((range_ns, offset_ns)))
    }

    fn duration(&mut self) -> Result<i64> {
        self.space();
        let at = self.at;
        let shown = self.literal();
        let wrong = |scanner: &Self| scanner.error(at, format!("`{shown}` is not a duration; write it like 5m or 1h30m"));
        let ns = units::duration(&shown).filter(|ns| ns.abs() < RANGE_NS).ok_or_else(|| wrong(self))?;
        Ok(ns as i64)
    }

    fn unwrap(&mut self) -> Result<Unwrap> {
        self.count()?;
        self.take("|");
        if !self.word("unwrap") {
            return Err(self.expected("`unwrap` or `)`"));
        }
        self.space();
        let at = self.at;
        let name = self.name().ok_or_else(|| self.expected("a label's name, or duration(label) or bytes(label)"))?;
        let conversion = if self.take("(") {
            match name.as_str() {
                "duration" | "duration_seconds" => Some(Conversion::Seconds),
                "bytes" => Some(Conversion::Bytes),
                _ => {
                    return Err(self.error(at, format!("`{name}` does not convert labels; known are duration, duration_seconds and bytes")));
                }
            }
        } else {
            None
        };
        let (label, conversion) = match conversion {
            None => (name, Conversion::Number),
            Some(conversion) => {
                let label = self.name().ok_or_else(|| self.expected("a label's name"))?;
                self.close()?;
                (label, conversion)
            }
        };
        let mut conditions = Vec::new();
        loop {
            self.space();
            let at = self.at;
            match self.stage()? {
                Some(Stage::Label(condition)) => conditions.push(condition),
                Some(_) => return Err(self.error(at, "only conditions on labels can follow `unwrap`")),
                None => return Ok(Unwrap { label, conversion, conditions }),
            }
        }
    }
}

fn range_op(name: &str) -> Option<RangeOp> {
    Some(match name {
        "count_over_time" => RangeOp::Count,
        "rate" => RangeOp::Rate,
        "bytes_over_time" => RangeOp::BytesOverTime,
        "bytes_rate" => RangeOp::BytesRate,
        "absent_over_time" => RangeOp::Absent,
        "sum_over_time" => RangeOp::Sum,
        "avg_over_time" => RangeOp::Avg,
        "min_over_time" => RangeOp::Min,
        "max_over_time" => RangeOp::Max,
        "first_over_time" => RangeOp::First,
        "last_over_time" => RangeOp::Last,
        "stddev_over_time" => RangeOp::StdDev,
        "stdvar_over_time" => RangeOp::StdVar,
        "quantile_over_time" => RangeOp::Quantile(0.0),
        _ => return None,
    })
}
