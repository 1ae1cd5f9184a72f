//! The commands `paretune completions` and `paretune man` generate shell completions and manual
//! pages from the command line's definition.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Cli, ExitStatus};

/// Arguments of the command `paretune completions`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  paretune completions bash > ~/.local/share/bash-completion/completions/paretune
  paretune completions fish > ~/.config/fish/completions/paretune.fish")]
pub struct CompletionsArgs {
    /// The shell to complete for
    #[arg(value_enum)]
    shell: Shell,
}

/// Arguments of the command `paretune man`.
#[derive(Args, Debug)]
pub struct ManArgs {
    /// Folder to write to, such as ~/.local/share/man/man1
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

/// Prints the completions of a shell.
pub fn completions(args: &CompletionsArgs) -> anyhow::Result<ExitStatus> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "paretune", &mut script);
    std::io::stdout().lock().write_all(&script)?;
    Ok(ExitStatus::Done)
}

/// Writes a manual page for the program and one for each command.
pub fn man(args: &ManArgs) -> anyhow::Result<ExitStatus> {
    std::fs::create_dir_all(&args.folder)
        .with_context(|| format!("cannot create `{}`", args.folder.display()))?;
    clap_mangen::generate_to(Cli::command(), &args.folder)
        .with_context(|| format!("cannot write to `{}`", args.folder.display()))?;
    Ok(ExitStatus::Done)
}
