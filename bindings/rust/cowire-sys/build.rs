// SPDX-License-Identifier: Apache-2.0
//! Finds libcowire.so: in COWIRE_LIB_DIR, else where pkg-config says, else where the linker looks.
use std::{env, process::Command};

fn main() {
    println!("cargo:rerun-if-env-changed=COWIRE_LIB_DIR");
    println!("cargo:rerun-if-env-changed=PKG_CONFIG_PATH");
    if let Some(directory) = env::var_os("COWIRE_LIB_DIR") {
        println!("cargo:rustc-link-search=native={}", directory.to_string_lossy());
    } else if let Ok(told) = Command::new("pkg-config").args(["--libs-only-L", "cowire-c"]).output() {
        for word in String::from_utf8_lossy(&told.stdout).split_whitespace() {
            if let Some(directory) = word.strip_prefix("-L") {
                println!("cargo:rustc-link-search=native={directory}");
            }
        }
    }
    println!("cargo:rustc-link-lib=dylib=cowire");
}
