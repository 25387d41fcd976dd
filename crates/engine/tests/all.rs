//! The engine against the kernel it runs on: as root or as an ordinary user, with whatever this machine allows. What the
//! machine forbids is printed, not passed over.
#![cfg(target_os = "linux")]

#[cfg(test)]
mod suite {
    mod common;
    mod contract;
    mod ends;
    mod filter;
    mod hostile;
    mod isolation;
    mod landlock;
    mod layers;
    mod layers_attack;
    mod layers_hold;
    mod limits;
    mod spares;
}
