//! SIGINT (Ctrl-C) and SIGTERM: a training finishes its step and writes a checkpoint first.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Set for a process that gets its signals from the one that started it, each as a byte on standard input, and
/// ends when that one is gone.
pub const LAUNCHED: &str = "VISAGE_LAUNCHED";

/// What a process has been asked for since [`Interrupt::watch`].
#[derive(Debug, Clone, Default)]
pub struct Interrupt(Arc<AtomicUsize>);

impl Interrupt {
    /// Watches this process's signals from now on. A second signal ends it at once.
    #[cfg(all(any(feature = "cli", feature = "serve"), unix))]
    pub fn watch() -> Self {
        use signal_hook::consts::{SIGINT, SIGTERM};
        use signal_hook::flag;
        use std::sync::atomic::AtomicBool;
        let (own, again) = (Self::default(), Arc::new(AtomicBool::new(false)));
        if std::env::var_os(LAUNCHED).is_some() {
            own.listen();
            return own;
        }
        for signal in [SIGINT, SIGTERM] {
            // In this order: the flag is only set when the first signal has been looked at. A process that
            // cannot watch its signals ends with the first one, as without this.
            let _ = flag::register_conditional_shutdown(signal, 128 + signal, again.clone());
            let _ = flag::register(signal, again.clone());
            let _ = flag::register_usize(signal, own.0.clone(), signal as usize);
        }
        own
    }

    /// Takes signals from standard input.
    #[cfg(all(any(feature = "cli", feature = "serve"), unix))]
    fn listen(&self) {
        let signals = self.0.clone();
        std::thread::spawn(move || {
            let mut byte = [0];
            while std::io::Read::read_exact(&mut std::io::stdin(), &mut byte).is_ok() {
                if signals.swap(byte[0].into(), Ordering::Relaxed) != 0 {
                    std::process::exit(128 + i32::from(byte[0]));
                }
            }
            std::process::exit(2);
        });
    }

    /// Elsewhere the first signal ends the process.
    #[cfg(not(all(any(feature = "cli", feature = "serve"), unix)))]
    pub fn watch() -> Self {
        Self::default()
    }

    /// The number of the signal that came, if one did.
    pub fn signal(&self) -> Option<u8> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            signal => u8::try_from(signal).ok(),
        }
    }

    /// As if `signal` had come.
    #[cfg(test)]
    pub fn send(&self, signal: u8) {
        self.0.store(signal.into(), Ordering::Relaxed);
    }
}
