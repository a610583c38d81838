//! The libFuzzer program of the target `approval`. The assertions are in `relay_fuzz_cases`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| relay_fuzz_cases::approval(data));
