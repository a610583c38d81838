//! The libFuzzer program of the target `record`. The assertions are in `relay_fuzz_cases`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| relay_fuzz_cases::record(data));
