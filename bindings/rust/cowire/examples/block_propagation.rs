// SPDX-License-Identifier: Apache-2.0
//! Sends shreds to 200 addresses as block propagation does: some threads with one sender, each
//! shred to everybody, from one source port.
//!
//!     block_propagation ADDRESS FIRST_PORT [SHREDS]
//!
//! The addresses are ports FIRST_PORT ... FIRST_PORT + 199 of ADDRESS. What was submitted, and what
//! became of it, is its output.
use cowire::{Options, SenderOptions, Transmitter};
use std::{env, error::Error, net::SocketAddr, process, thread, time::Duration};

const PEERS: u16 = 200;
const THREADS: usize = 4;
const SHRED_BYTES: usize = 1203;

fn run(address: &str, first_port: &str, shreds: usize) -> Result<(), Box<dyn Error>> {
    let (ip, first) = (address.parse()?, first_port.parse::<u16>()?);
    let last = first.checked_add(PEERS - 1).ok_or("FIRST_PORT + 199 is beyond 65535")?;
    let peers: Vec<_> = (first..=last).map(|port| SocketAddr::new(ip, port)).collect();

    let transmitter = Transmitter::open(&Options::default())?;
    let sender = transmitter.sender(&SenderOptions { source_port: 8001, ..Default::default() })?;
    thread::scope(|scope| {
        for index in 0..THREADS {
            let (sender, peers) = (sender.clone(), &peers);
            scope.spawn(move || {
                for shred in (index..shreds).step_by(THREADS) {
                    let mut payload = [0; SHRED_BYTES];
                    payload[..8].copy_from_slice(&(shred as u64).to_be_bytes());
                    let mut reached = 0;
                    while reached < peers.len() {
                        match sender.try_fan_out(&payload, &peers[reached..]) {
                            Ok(0) => drop(sender.wait(Duration::from_millis(1))),
                            Ok(more) => reached += more,
                            Err(error) => {
                                eprintln!("shred {shred}: {error}");
                                break;
                            }
                        }
                        while let Some(told) = sender.next_error() {
                            eprintln!("{told:?}");
                        }
                    }
                }
            });
        }
    });
    while transmitter.counter("on_the_way") != Some(0) {
        thread::sleep(Duration::from_millis(1));
    }
    for (name, value) in transmitter.counters().into_iter().filter(|(_, value)| *value != 0) {
        println!("{name} {value}");
    }
    Ok(())
}

fn main() {
    let words: Vec<_> = env::args().skip(1).collect();
    let shreds = words.get(2).map_or(Ok(100), |word| word.parse());
    let shreds = match (words.len(), shreds) {
        (2..=3, Ok(shreds)) => shreds,
        _ => {
            eprintln!("usage: block_propagation ADDRESS FIRST_PORT [SHREDS]");
            process::exit(2);
        }
    };
    if let Err(error) = run(&words[0], &words[1], shreds) {
        eprintln!("block_propagation: {error}");
        process::exit(1);
    }
}
