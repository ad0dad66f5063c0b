//! From words to a tree, checked: functions and variables exist.

use super::{
    functions,
    lex::{self, Part, Token},
    value::Value,
};
use std::{collections::VecDeque, iter::Peekable, vec::IntoIter};

/// Deepest nesting of blocks and parentheses.
const MAX_DEPTH: usize = 32;

/// A piece of a template.
#[derive(Clone, Debug)]
pub(super) enum Node {
    Text(String),
    Emit(Pipeline),
    If { branches: Vec<(Pipeline, Vec<Self>)>, otherwise: Vec<Self> },
    With { value: Pipeline, body: Vec<Self>, otherwise: Vec<Self> },
    Range { names: Vec<String>, over: Pipeline, body: Vec<Self>, otherwise: Vec<Self> },
}

/// Commands, each given the result of the one before as its last argument.
#[derive(Clone, Debug)]
pub(super) struct Pipeline {
    /// `$x := …` (`true`: new) or `$x = …`.
    pub(super) target: Option<(String, bool)>,
    pub(super) commands: Vec<Vec<Operand>>,
}

/// A value with fields taken of it.
#[derive(Clone, Debug)]
pub(super) struct Operand {
    pub(super) base: Base,
    pub(super) fields: Vec<String>,
}

#[derive(Clone, Debug)]
pub(super) enum Base {
    Dot,
    Variable(String),
    Constant(Value),
    Function(String),
    Group(Box<Pipeline>),
}

struct Parser<'a> {
    parts: VecDeque<Part<'a>>,
    variables: Vec<String>,
    depth: usize,
}

/// How a block ended.
enum Stop {
    Text,
    End,
    Else(Vec<Token>),
}

pub(super) fn parse(source: &str) -> Result<Vec<Node>, String> {
    let variables = ["labels", "externalLabels", "externalURL", "value", ""].map(str::to_owned).to_vec();
    let mut parser = Parser { parts: lex::split(source)?.into(), variables, depth: 0 };
    match parser.block()? {
        (nodes, Stop::Text) => Ok(nodes),
        (_, Stop::End) => Err("unexpected {{end}}".to_owned()),
        (_, Stop::Else(_)) => Err("unexpected {{else}}".to_owned()),
    }
}

impl Parser<'_> {
    fn block(&mut self) -> Result<(Vec<Node>, Stop), String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(format!("nested deeper than {MAX_DEPTH} levels"));
        }
        let scope = self.variables.len();
        let mut nodes = Vec::new();
        let end = loop {
            let Some(part) = self.parts.pop_front() else { break Stop::Text };
            let action = match part {
                Part::Text(text) => {
                    nodes.push(Node::Text(text.to_owned()));
                    continue;
                }
                Part::Action(action) => action,
            };
            let mut tokens = lex::tokens(action)?;
            match tokens.first() {
                Some(Token::Word(word)) if word == "end" && tokens.len() == 1 => break Stop::End,
                Some(Token::Word(word)) if word == "else" => break Stop::Else(tokens.split_off(1)),
                Some(Token::Word(word)) if matches!(word.as_str(), "if" | "with" | "range") => {
                    let word = word.clone();
                    nodes.push(self.control(&word, tokens.split_off(1))?);
                }
                Some(Token::Word(word)) if matches!(word.as_str(), "define" | "template" | "block" | "break" | "continue") => {
                    return Err(format!("`{word}` is not supported"));
                }
                _ => nodes.push(Node::Emit(self.pipeline(tokens)?)),
            }
        };
        self.variables.truncate(scope);
        self.depth -= 1;
        Ok((nodes, end))
    }

    fn control(&mut self, word: &str, tokens: Vec<Token>) -> Result<Node, String> {
        let scope = self.variables.len();
        let node = match word {
            "if" => self.conditions(tokens)?,
            "with" => {
                let value = self.pipeline(tokens)?;
                let (body, otherwise) = self.body_and_else(word)?;
                Node::With { value, body, otherwise }
            }
            _ => {
                let (names, tokens) = range_names(tokens)?;
                let over = self.pipeline(tokens)?;
                self.variables.extend(names.iter().cloned());
                let (body, otherwise) = self.body_and_else(word)?;
                Node::Range { names, over, body, otherwise }
            }
        };
        self.variables.truncate(scope);
        Ok(node)
    }

    fn conditions(&mut self, tokens: Vec<Token>) -> Result<Node, String> {
        let mut branches = Vec::new();
        let mut condition = self.pipeline(tokens)?;
        loop {
            let (body, end) = self.block()?;
            branches.push((condition, body));
            match end {
                Stop::Text => return Err("unexpected EOF: {{if}} without {{end}}".to_owned()),
                Stop::End => return Ok(Node::If { branches, otherwise: Vec::new() }),
                Stop::Else(rest) if rest.is_empty() => {
                    let otherwise = self.last_block("if")?;
                    return Ok(Node::If { branches, otherwise });
                }
                Stop::Else(mut rest) => {
                    if rest.first() != Some(&Token::Word("if".to_owned())) {
                        return Err("after `else` only `if` may follow".to_owned());
                    }
                    condition = self.pipeline(rest.split_off(1))?;
                }
            }
        }
    }

    fn body_and_else(&mut self, word: &str) -> Result<(Vec<Node>, Vec<Node>), String> {
        let (body, end) = self.block()?;
        match end {
            Stop::End => Ok((body, Vec::new())),
            Stop::Else(rest) if rest.is_empty() => Ok((body, self.last_block(word)?)),
            Stop::Else(_) => Err(format!("`{word}` takes a plain {{{{else}}}}")),
            Stop::Text => Err(format!("unexpected EOF: {{{{{word}}}}} without {{{{end}}}}")),
        }
    }

    fn last_block(&mut self, word: &str) -> Result<Vec<Node>, String> {
        match self.block()? {
            (nodes, Stop::End) => Ok(nodes),
            _ => Err(format!("{{{{else}}}} of {{{{{word}}}}} without {{{{end}}}}")),
        }
    }

    fn pipeline(&mut self, tokens: Vec<Token>) -> Result<Pipeline, String> {
        let mut tokens = tokens.into_iter().peekable();
        let pipeline = self.commands(&mut tokens, 0)?;
        match tokens.next() {
            None => Ok(pipeline),
            Some(token) => Err(format!("unexpected {token:?}")),
        }
    }

    fn commands(&mut self, tokens: &mut Peekable<IntoIter<Token>>, depth: usize) -> Result<Pipeline, String> {
        if depth > MAX_DEPTH {
            return Err(format!("nested deeper than {MAX_DEPTH} levels"));
        }
        let mut ahead = tokens.clone();
        let mut target = None;
        if let (Some(Token::Variable(name)), Some(sign @ (Token::Declare | Token::Assign))) = (ahead.next(), ahead.next()) {
            *tokens = ahead;
            target = Some((name, sign == Token::Declare));
        }
        let mut commands = vec![self.command(tokens, depth)?];
        while tokens.next_if_eq(&Token::Pipe).is_some() {
            commands.push(self.command(tokens, depth)?);
        }
        for (at, command) in commands.iter().enumerate() {
            let callable = matches!(command.first(), Some(Operand { base: Base::Function(_), .. }));
            if !callable && (command.len() > 1 || at > 0) {
                return Err("only a function can be given arguments".to_owned());
            }
        }
        match &target {
            Some((name, true)) => self.variables.push(name.clone()),
            Some((name, false)) if !self.variables.contains(name) => return Err(format!("undefined variable \"${name}\"")),
            _ => {}
        }
        Ok(Pipeline { target, commands })
    }

    fn command(&mut self, tokens: &mut Peekable<IntoIter<Token>>, depth: usize) -> Result<Vec<Operand>, String> {
        let mut operands: Vec<Operand> = Vec::new();
        while let Some(token) = tokens.next_if(|token| !matches!(token, Token::Pipe | Token::Close)) {
            let base = match token {
                Token::Field(name, true) => {
                    let last = operands.last_mut().ok_or("a field needs something before it")?;
                    last.fields.push(name);
                    continue;
                }
                Token::Field(name, false) => {
                    operands.push(Operand { base: Base::Dot, fields: vec![name] });
                    continue;
                }
                Token::Dot => Base::Dot,
                Token::Variable(name) => self.variable(name)?,
                Token::Text(text) => Base::Constant(Value::Text(text)),
                Token::Int(number) => Base::Constant(Value::Int(number)),
                Token::Float(number) => Base::Constant(Value::Float(number)),
                Token::Word(word) => word_base(word)?,
                Token::Open => {
                    let inner = self.commands(tokens, depth + 1)?;
                    tokens.next_if_eq(&Token::Close).ok_or("unclosed left paren")?;
                    Base::Group(Box::new(inner))
                }
                other => return Err(format!("unexpected {other:?}")),
            };
            operands.push(Operand { base, fields: Vec::new() });
        }
        if operands.is_empty() { Err("missing value for command".to_owned()) } else { Ok(operands) }
    }

    fn variable(&self, name: String) -> Result<Base, String> {
        if self.variables.contains(&name) { Ok(Base::Variable(name)) } else { Err(format!("undefined variable \"${name}\"")) }
    }
}

fn word_base(word: String) -> Result<Base, String> {
    Ok(match word.as_str() {
        "true" => Base::Constant(Value::Bool(true)),
        "false" => Base::Constant(Value::Bool(false)),
        "nil" => Base::Constant(Value::Nil),
        name if functions::exists(name) => Base::Function(word),
        name => return Err(functions::unknown(name)),
    })
}

/// `$index, $element :=` or `$element :=` before what a range goes over.
fn range_names(tokens: Vec<Token>) -> Result<(Vec<String>, Vec<Token>), String> {
    let Some(at) = tokens.iter().position(|token| *token == Token::Declare) else { return Ok((Vec::new(), tokens)) };
    let names = match &tokens[..at] {
        [Token::Variable(one)] => vec![one.clone()],
        [Token::Variable(one), Token::Comma, Token::Variable(two)] => vec![one.clone(), two.clone()],
        _ => return Err("range takes `$element :=` or `$index, $element :=`".to_owned()),
    };
    Ok((names, tokens[at + 1..].to_vec()))
}
