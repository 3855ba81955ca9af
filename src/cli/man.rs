//! The manual page: one for the whole command, with its files, variables, exit codes and examples.

use std::io::{self, Write};

use clap::Command;
use clap_mangen::Man;

use super::ExitReason;

/// The sections after those of the commands, in roff.
const REST: &str = include_str!("man/rest.roff");

/// Writes the page of the whole command, or that of one subcommand.
pub(crate) fn write(
    mut all: Command,
    command: Option<&str>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<ExitReason> {
    // Sets the full name of each subcommand.
    all.build();
    let mut text = Vec::new();
    match command {
        None => whole(&all, &mut text)?,
        Some(name) => match all.find_subcommand(name) {
            Some(one) => Man::new(one.clone()).render(&mut text)?,
            None => {
                let shown = all.get_subcommands().filter(|one| !one.is_hide_set());
                let known: Vec<&str> = shown.map(Command::get_name).collect();
                let near = breakerbox_actors::did_you_mean(name, known.iter().copied());
                let known = known.join(", ");
                writeln!(
                    err,
                    "breakerbox: there is no command {name:?}{near}, allowed: {known}"
                )?;
                return Ok(ExitReason::WrongUse);
            }
        },
    }
    out.write_all(&text)?;
    Ok(ExitReason::Done)
}

fn whole(all: &Command, text: &mut Vec<u8>) -> io::Result<()> {
    let page = Man::new(all.clone());
    page.render_title(text)?;
    page.render_name_section(text)?;
    page.render_synopsis_section(text)?;
    page.render_description_section(text)?;
    writeln!(text, ".SH COMMANDS")?;
    let commands = all.get_subcommands().filter(|one| !one.is_hide_set());
    for one in commands.filter(|one| one.get_name() != "help") {
        writeln!(text, ".SS {}", one.get_name())?;
        text.write_all(&part(one)?)?;
    }
    text.write_all(REST.as_bytes())?;
    page.render_version_section(text)
}

/// Returns the synopsis, the description and the options of a subcommand, without their headings.
fn part(command: &Command) -> io::Result<Vec<u8>> {
    let page = Man::new(command.clone());
    let mut text = Vec::new();
    page.render_synopsis_section(&mut text)?;
    page.render_description_section(&mut text)?;
    let has_options = command.get_arguments().any(|one| !one.is_hide_set());
    if has_options {
        page.render_options_section(&mut text)?;
    }
    let mut kept = Vec::new();
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        if line.starts_with(b".SH ") {
            // A paragraph in place of a section.
            kept.extend_from_slice(b".PP\n");
        } else {
            kept.extend_from_slice(line);
        }
    }
    Ok(kept)
}
