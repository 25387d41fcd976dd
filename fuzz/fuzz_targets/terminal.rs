//! Output of a terminal. The first three bytes: columns, rows, and in which pieces the rest comes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sandhold_fuzz::within;
use sandhold_mcp::{
    fuzz::terminal,
    limits::{SHELL_ANSWERS, SHELL_TITLE, SHELL_UNREAD},
};

fuzz_target!(init: survive(), |data: &[u8]| {
    let [cols, rows, size, output @ ..] = data else { return };
    let (cols, rows) = (u32::from(*cols).clamp(1, 200), u32::from(*rows).clamp(1, 60));
    let show = |size: usize| within(32 << 20, || terminal(cols, rows, output.chunks(size)));
    let (screen, cursor, title, text, answers) = show(usize::MAX);
    assert!(screen.lines().count() <= rows as usize);
    for line in screen.lines() {
        assert!(line.chars().filter(|c| !c.is_control()).count() <= cols as usize, "{line:?}");
    }
    if let Some((row, column)) = cursor {
        assert!((1..=rows as usize).contains(&row) && (1..=cols as usize).contains(&column));
    }
    assert!(title.len() <= SHELL_TITLE + 3 && !title.chars().any(char::is_control));
    assert!(text.len() <= 2 * SHELL_UNREAD);
    // A program reads the answers as if they were typed: no letter of them is its own, and no line ends in them.
    assert!(answers.len() <= SHELL_ANSWERS * 40);
    assert!(answers.iter().all(|byte| b"\x1b\\[]0123456789;?>$:/cfnRbgrty".contains(byte)), "{answers:?}");
    let (_, _, title_of_pieces, text_of_pieces, _) = show(usize::from(*size).max(1));
    assert_eq!((title_of_pieces, text_of_pieces), (title, text), "it depends on the pieces");
});

/// The emulator of the screen may fail: that is caught, and costs the picture alone. Everything else may not.
fn survive() {
    let abort = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let emulators = info.location().is_some_and(|at| at.file().contains("/avt-"));
        if !emulators {
            abort(info);
        }
    }));
}
