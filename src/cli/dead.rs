//! `breakerbox dead`: the dead letters of a consumer, looked at, put back into their queue, or
//! dropped.
//!
//! It speaks to the NATS servers of the configuration, not to a running Breakerbox.

use std::io::{self, Write};

use breakerbox::config::{ConsumerConfig, FleetConfig};
use breakerbox::consume::{DeadLetter, DeadLetterError, DeadLetters};
use breakerbox::serve;
use breakerbox_actors::{did_you_mean, printable, printable_json};
use clap::Subcommand;
use serde_json::{Value, json};

use crate::cli::{ConfigArgs, ExitReason};

/// Arguments of `breakerbox dead`.
#[derive(Debug, clap::Args)]
pub(crate) struct DeadArgs {
    #[command(subcommand)]
    command: DeadCommand,
}

/// Arguments that each of the commands has.
#[derive(Debug, clap::Args)]
struct LetterArgs {
    /// The consumer
    consumer: String,
    /// The numbers of the dead letters, as `dead list` shows them
    #[arg(required = true, value_name = "NUMBER")]
    numbers: Vec<u64>,
    #[command(flatten)]
    config: ConfigArgs,
}

#[derive(Debug, Subcommand)]
enum DeadCommand {
    /// Lists the dead letters, the oldest first
    List {
        /// The consumer
        consumer: String,
        /// Maximum number of dead letters
        #[arg(long, default_value_t = 100)]
        most: usize,
        /// Prints one JSON array
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Shows dead letters whole: headers, problem document and payload
    Show(LetterArgs),
    /// Publishes the messages to their own subjects again, and drops the letters
    Requeue(LetterArgs),
    /// Drops dead letters for good
    Drop(LetterArgs),
}

/// The order for each dead letter.
#[derive(Clone, Copy)]
enum LetterOrder {
    Show,
    Requeue,
    Drop,
}

/// Connects to the servers, and carries out the command.
pub(crate) fn run(
    arguments: DeadArgs,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<ExitReason> {
    let (consumer, config) = match &arguments.command {
        DeadCommand::List {
            consumer, config, ..
        } => (consumer.clone(), config.clone()),
        DeadCommand::Show(letters) | DeadCommand::Requeue(letters) | DeadCommand::Drop(letters) => {
            (letters.consumer.clone(), letters.config.clone())
        }
    };
    let settings = match serve::check(config.choice(), false) {
        Ok(settings) => settings,
        Err(refused) => {
            writeln!(err, "breakerbox: {refused}")?;
            return Ok(ExitReason::WrongUse);
        }
    };
    let found = settings.consumers.get(&consumer);
    let (Some(found), Some(fleet)) = (found, &settings.fleet) else {
        let known: Vec<&str> = settings.consumers.keys().map(String::as_str).collect();
        let near = did_you_mean(&consumer, known.iter().copied());
        let known = match known.is_empty() {
            true => "none".to_owned(),
            false => known.join(", "),
        };
        let consumer = printable(&consumer);
        writeln!(
            err,
            "breakerbox: there is no consumer {consumer}{near}; the configuration has: {known}"
        )?;
        return Ok(ExitReason::WrongUse);
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let done = runtime.block_on(carry_out(&arguments.command, (fleet, found), out));
    match done {
        Ok(written) => written.map(|()| ExitReason::Done),
        Err(error) => {
            // The servers' own words may be in it.
            writeln!(err, "breakerbox: {}", printable(&error.to_string()))?;
            Ok(match error {
                DeadLetterError::Unknown(_) => ExitReason::WrongUse,
                _ => ExitReason::Failed,
            })
        }
    }
}

async fn carry_out(
    command: &DeadCommand,
    (fleet, consumer): (&FleetConfig, &ConsumerConfig),
    out: &mut dyn Write,
) -> Result<io::Result<()>, DeadLetterError> {
    let letters = DeadLetters::connect(fleet, &consumer.dead_letters).await?;
    let (numbers, order) = match command {
        DeadCommand::List { most, json, .. } => {
            let all = letters.list(*most).await?;
            return Ok(match json {
                true => {
                    let all: Vec<Value> = all.iter().map(letter_json).collect();
                    writeln!(out, "{}", printable_json(&Value::Array(all).to_string()))
                }
                false => write_list(&all, out),
            });
        }
        DeadCommand::Show(letters) => (&letters.numbers, LetterOrder::Show),
        DeadCommand::Requeue(letters) => (&letters.numbers, LetterOrder::Requeue),
        DeadCommand::Drop(letters) => (&letters.numbers, LetterOrder::Drop),
    };
    for number in numbers {
        let written = match order {
            LetterOrder::Show => write_letter(&letters.get(*number).await?, out),
            LetterOrder::Requeue => {
                let letter = letters.requeue(*number).await?;
                let subject = printable(&letter.subject);
                writeln!(out, "{number} is in {subject} again")
            }
            LetterOrder::Drop => {
                letters.discard(*number).await?;
                writeln!(out, "{number} is dropped")
            }
        };
        if written.is_err() {
            return Ok(written);
        }
    }
    Ok(Ok(()))
}

fn write_list(letters: &[DeadLetter], out: &mut dyn Write) -> io::Result<()> {
    if letters.is_empty() {
        return writeln!(out, "there are no dead letters");
    }
    writeln!(out, "NUMBER\tREASON\tEXECUTED\tMESSAGE\tDETAIL")?;
    for letter in letters {
        let facts = [
            letter.fact("reason"),
            letter.fact("executed"),
            letter.id.clone(),
            letter.fact("detail"),
        ];
        writeln!(out, "{}", row(letter.number, &facts))?;
    }
    Ok(())
}

/// Returns a line of the list: the facts are texts of the sender, and of the dependency.
fn row(number: u64, facts: &[String]) -> String {
    let facts = facts.iter().map(|fact| printable(fact).into_owned());
    let facts: Vec<String> = facts.collect();
    format!("{number}\t{}", facts.join("\t"))
}

fn write_letter(letter: &DeadLetter, out: &mut dyn Write) -> io::Result<()> {
    let json = letter_json(letter);
    let text = serde_json::to_string_pretty(&json).unwrap_or_default();
    writeln!(out, "{}", printable_json(&text))
}

/// Returns a dead letter as JSON: its payload as a text if it is one, else its length.
fn letter_json(letter: &DeadLetter) -> Value {
    let payload = match std::str::from_utf8(&letter.payload) {
        Ok(text) => json!(text),
        Err(_) => json!({ "bytes": letter.payload.len() }),
    };
    json!({
        "number": letter.number,
        "at_ms": i64::try_from(letter.at_ms).unwrap_or_default(),
        "id": letter.id,
        "subject": letter.subject,
        "problem": letter.problem,
        "headers": letter.headers,
        "payload": payload,
    })
}

#[cfg(test)]
mod tests {
    use super::row;

    #[test]
    fn edge_7_no_fact_of_a_dead_letter_moves_a_terminal_or_makes_a_line() {
        let facts = ["failures".to_owned(), "\u{1b}[2J\n9\tforged".to_owned()];
        assert_eq!(row(3, &facts), "3\tfailures\t\\u{1b}[2J\\n9\\tforged");
    }
}
