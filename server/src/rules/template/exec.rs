//! Expands a tree.

use super::{
    Data, functions,
    parse::{Base, Node, Operand, Pipeline},
    value::{self, Value},
};
use std::collections::BTreeMap;

/// Longest output.
const MAX_OUTPUT_BYTES: usize = 64 << 10;
/// Most nodes evaluated.
const MAX_STEPS: usize = 100_000;

struct Run<'a> {
    data: &'a Data<'a>,
    variables: Vec<(String, Value)>,
    output: String,
    steps: usize,
}

pub(super) fn run(nodes: &[Node], data: &Data<'_>) -> Result<String, String> {
    let variables = vec![
        (String::new(), Value::Root),
        ("labels".to_owned(), Value::Map(value::map(data.labels))),
        ("externalLabels".to_owned(), Value::Map(BTreeMap::new())),
        ("externalURL".to_owned(), Value::Text(data.external_url.to_owned())),
        ("value".to_owned(), Value::Float(data.value)),
    ];
    let mut run = Run { data, variables, output: String::new(), steps: 0 };
    run.nodes(nodes, &Value::Root)?;
    Ok(run.output)
}

impl Run<'_> {
    fn nodes(&mut self, nodes: &[Node], dot: &Value) -> Result<(), String> {
        let scope = self.variables.len();
        for node in nodes {
            self.steps += 1;
            if self.steps > MAX_STEPS || self.output.len() > MAX_OUTPUT_BYTES {
                return Err("the result is too large".to_owned());
            }
            self.node(node, dot)?;
        }
        self.variables.truncate(scope);
        Ok(())
    }

    fn node(&mut self, node: &Node, dot: &Value) -> Result<(), String> {
        let scope = self.variables.len();
        match node {
            Node::Text(text) => self.output.push_str(text),
            Node::Emit(pipeline) => {
                let value = self.pipeline(pipeline, dot)?;
                if pipeline.target.is_none() {
                    self.output.push_str(&value.show());
                }
                // A variable lives until the end of its block.
                return Ok(());
            }
            Node::If { branches, otherwise } => {
                for (condition, body) in branches {
                    if self.pipeline(condition, dot)?.is_true() {
                        self.nodes(body, dot)?;
                        self.variables.truncate(scope);
                        return Ok(());
                    }
                }
                self.nodes(otherwise, dot)?;
            }
            Node::With { value, body, otherwise } => {
                let value = self.pipeline(value, dot)?;
                if value.is_true() { self.nodes(body, &value) } else { self.nodes(otherwise, dot) }?;
            }
            Node::Range { names, over, body, otherwise } => self.range(names, over, body, otherwise, dot)?,
        }
        self.variables.truncate(scope);
        Ok(())
    }

    fn range(&mut self, names: &[String], over: &Pipeline, body: &[Node], otherwise: &[Node], dot: &Value) -> Result<(), String> {
        let items: Vec<(Value, Value)> = match self.pipeline(over, dot)? {
            Value::List(items) => {
                items.into_iter().enumerate().map(|(at, item)| (Value::Int(i64::try_from(at).unwrap_or(0)), item)).collect()
            }
            Value::Map(map) => map.into_iter().map(|(name, value)| (Value::Text(name), Value::Text(value))).collect(),
            Value::Nil => Vec::new(),
            other => return Err(format!("range can't iterate over {}", other.kind())),
        };
        if items.is_empty() {
            return self.nodes(otherwise, dot);
        }
        for (index, item) in items {
            let scope = self.variables.len();
            match names {
                [element] => self.variables.push((element.clone(), item.clone())),
                [at, element] => self.variables.extend([(at.clone(), index), (element.clone(), item.clone())]),
                _ => {}
            }
            self.nodes(body, &item)?;
            self.variables.truncate(scope);
        }
        Ok(())
    }

    fn pipeline(&mut self, pipeline: &Pipeline, dot: &Value) -> Result<Value, String> {
        let mut last: Option<Value> = None;
        for command in &pipeline.commands {
            last = Some(self.command(command, dot, last)?);
        }
        let value = last.unwrap_or(Value::Nil);
        match &pipeline.target {
            Some((name, true)) => self.variables.push((name.clone(), value.clone())),
            Some((name, false)) => {
                if let Some(slot) = self.variables.iter_mut().rev().find(|(known, _)| known == name) {
                    slot.1 = value.clone();
                }
            }
            None => {}
        }
        Ok(value)
    }

    fn command(&mut self, command: &[Operand], dot: &Value, piped: Option<Value>) -> Result<Value, String> {
        let Some((first, rest)) = command.split_first() else { return Ok(Value::Nil) };
        let Base::Function(name) = &first.base else { return self.operand(first, dot) };
        let mut arguments = rest.iter().map(|operand| self.operand(operand, dot)).collect::<Result<Vec<_>, _>>()?;
        arguments.extend(piped);
        let result = functions::call(name, &arguments, self.data).map_err(|error| format!("error calling {name}: {error}"))?;
        fields(result, &first.fields, self.data)
    }

    fn operand(&mut self, operand: &Operand, dot: &Value) -> Result<Value, String> {
        let value = match &operand.base {
            Base::Dot => dot.clone(),
            Base::Constant(value) => value.clone(),
            Base::Variable(name) => {
                let found = self.variables.iter().rev().find(|(known, _)| known == name);
                found.map(|(_, value)| value.clone()).ok_or_else(|| format!("undefined variable \"${name}\""))?
            }
            Base::Group(pipeline) => self.pipeline(pipeline, dot)?,
            // Without arguments, as an argument.
            Base::Function(name) => functions::call(name, &[], self.data).map_err(|error| format!("error calling {name}: {error}"))?,
        };
        fields(value, &operand.fields, self.data)
    }
}

fn fields(mut value: Value, names: &[String], data: &Data<'_>) -> Result<Value, String> {
    for name in names {
        value = match (value, name.as_str()) {
            (Value::Root, "Labels") => Value::Map(value::map(data.labels)),
            (Value::Root, "ExternalLabels") => Value::Map(BTreeMap::new()),
            (Value::Root, "ExternalURL") => Value::Text(data.external_url.to_owned()),
            (Value::Root, "Value") => Value::Float(data.value),
            (Value::Sample(labels, _), "Labels") => Value::Map(labels),
            (Value::Sample(_, number), "Value") => Value::Float(number),
            (Value::Map(mut map), name) => Value::Text(map.remove(name).unwrap_or_default()),
            (Value::Nil, name) => return Err(format!("nil pointer evaluating interface {{}}.{name}")),
            (other, name) => return Err(format!("can't evaluate field {name} in type {}", other.kind())),
        };
    }
    Ok(value)
}
