//! Whole runs. All are in one executable, so that it can be copied into the nested host and run
//! there with the same command and the same guest image.

mod bad_image;
mod bad_usage;
mod believed;
mod bench;
mod control;
mod deliveries;
mod describe;
mod examples;
mod explore;
mod formats;
mod guest_words;
mod hostile;
mod hostile_search;
mod image_lint;
mod interrupt;
mod litmus;
mod live;
mod meddling;
mod no_kvm;
mod oracles;
mod output;
mod provenance;
mod qemu;
mod reports;
mod scripts;
mod selftest;
mod sources;
mod stalls;
mod stories;
mod stress;
mod terminal;
mod traces;
mod transports;
mod wire;
mod writing_a_guest;
