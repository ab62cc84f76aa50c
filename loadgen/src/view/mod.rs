//! How a run is shown while it runs: on a terminal as a screen, elsewhere as lines.
//!
//! Knows: what standard output and standard error are. Must not know: how figures come about.

mod histogram;
mod lines;
mod screen;

use std::io::IsTerminal as _;

use self::lines::Lines;
use self::screen::Screen;
use crate::report::words::count;
use crate::watch::Figures;

/// One of the ways; gone when dropped, and the terminal as it was.
#[derive(Default)]
pub(crate) enum View {
    /// With --quiet, and when it is over.
    #[default]
    Hidden,
    /// To standard error.
    Lines(Lines),
    /// On standard output.
    Screen(Box<Screen>),
}

impl View {
    /// What suits where the output goes.
    pub(crate) fn choose(quiet: bool) -> Self {
        if quiet {
            return Self::Hidden;
        }
        let is_terminal = std::io::stdout().is_terminal();
        match is_terminal.then(Screen::open).flatten() {
            Some(screen) => Self::Screen(Box::new(screen)),
            None => Self::Lines(Lines::default()),
        }
    }

    /// To be called often: shows something when it is time to.
    pub(crate) fn show(&mut self, figures: &Figures<'_>, now_ns: u64) {
        match self {
            Self::Hidden => {}
            Self::Lines(lines) => lines.show(figures, now_ns),
            Self::Screen(screen) => screen.show(figures, now_ns),
        }
    }
}

/// What is wrong so far, in words; empty if nothing is.
fn wrong(figures: &Figures<'_>) -> String {
    let faults = &figures.faults;
    let counts = [
        (faults.lost, "lost"),
        (figures.gaps_open, "gaps open"),
        (faults.duplicated, "doubled"),
        (faults.reordered, "reordered"),
        (faults.damaged, "damaged"),
        (faults.misnamed, "misnamed"),
        (faults.foreign, "not subscribed to"),
    ];
    let parts = counts.iter().filter(|&&(number, _)| number > 0);
    let parts: Vec<_> = parts.map(|&(number, what)| format!("{} {what}", count(number))).collect();
    parts.join(", ")
}
