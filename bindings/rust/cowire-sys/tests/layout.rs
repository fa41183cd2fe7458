// SPDX-License-Identifier: Apache-2.0
//! Sizes and offsets are those that a C compiler gives the header's structs, and every function of
//! the header is declared here. Needs `cc`, and COWIRE_INCLUDE_DIR where cowire.h is not installed.
use cowire_sys::*;
use std::{env, fs, mem, process::Command};

/// "name.field offset" of each field, and "name size" of each struct.
macro_rules! layouts {
    ($($name:ident { $($field:ident)* })*) => {{
        let mut rust = Vec::new();
        let mut c = String::new();
        $(
            rust.push(format!("{} {}", stringify!($name), mem::size_of::<$name>()));
            c += concat!("  printf(\"%s %zu\\n\", \"", stringify!($name), "\", sizeof(",
                         stringify!($name), "));\n");
            $(
                // SAFETY: all zero is a value of each of these, and the fields' addresses are only
                // subtracted.
                let one: $name = unsafe { mem::zeroed() };
                #[allow(unused_unsafe)] // Of a union it needs one.
                let field = unsafe { std::ptr::addr_of!(one.$field) as usize };
                let offset = field - std::ptr::addr_of!(one) as usize;
                rust.push(format!("{}.{} {}", stringify!($name), stringify!($field), offset));
                c += concat!("  printf(\"%s.%s %zu\\n\", \"", stringify!($name), "\", \"",
                             stringify!($field), "\", offsetof(", stringify!($name), ", ",
                             stringify!($field), "));\n");
            )*
        )*
        (rust, c)
    }};
}

#[test]
fn structs_are_laid_out_as_in_c() {
    let (rust, prints) = layouts! {
        cowire_address { v4 v6 }
        cowire_options {
            size interfaces mode tx_cores frames shared_producers log_fd reserved
        }
        cowire_sender_options {
            size source_port tos ttl mark device adopt_socket errors_max source_v4 source_v6
        }
        cowire_datagram { data length to reserved }
        cowire_datagram_options { size source dscp ecn ttl flags mark }
        cowire_frame { data capacity length opaque }
        cowire_error { destination number mtu from_network }
        cowire_counter { name value }
    };
    let folder = env::temp_dir().join(format!("cowire-layout-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let (source, program) = (folder.join("layout.c"), folder.join("layout"));
    fs::write(
        &source,
        format!(
            "#include <cowire.h>\n#include <stdio.h>\nint main(void) {{\n{prints}  return 0;\n}}\n"
        ),
    )
    .unwrap();
    let mut compiler = Command::new("cc");
    if let Some(include) = env::var_os("COWIRE_INCLUDE_DIR") {
        compiler.arg("-I").arg(include);
    }
    assert!(compiler.arg("-o").arg(&program).arg(&source).status().unwrap().success());
    let printed = Command::new(&program).output().unwrap().stdout;
    fs::remove_dir_all(&folder).unwrap();
    let c: Vec<_> = String::from_utf8(printed).unwrap().lines().map(String::from).collect();
    assert_eq!(c, rust);
}

#[test]
fn every_function_is_declared() {
    let include = env::var("COWIRE_INCLUDE_DIR").unwrap_or_else(|_| "/usr/include".into());
    let header = fs::read_to_string(format!("{include}/cowire.h")).unwrap();
    let here = include_str!("../src/lib.rs");
    let functions = header
        .lines()
        .filter(|line| line.starts_with("COWIRE_API "))
        .map(|line| {
            let before = line.split('(').next().unwrap();
            before.rsplit(|c: char| !(c.is_alphanumeric() || c == '_')).next().unwrap()
        })
        .collect::<Vec<_>>();
    assert!(functions.len() >= 19, "{functions:?}");
    for name in functions {
        assert!(here.contains(&format!("pub fn {name}(")), "{name}");
    }
}
