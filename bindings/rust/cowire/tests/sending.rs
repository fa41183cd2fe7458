// SPDX-License-Identifier: Apache-2.0
//! What arrives on another host, and what comes back. Ignored without that host: tests/rust.
mod common;
use common::*;
use cowire::{
    DatagramOptions, Error, Mode, Options, Sender, SenderOptions, Transmitter, TrySendError, Warnings,
};
use std::{
    collections::HashSet,
    io::{Read, Write},
    net::{IpAddr, UdpSocket},
    os::unix::{io::AsFd, net::UnixStream},
    process::Command,
    thread,
    time::Duration,
};

fn assert_shared<T: Clone + Send + Sync>() {}

#[test]
fn handles_are_clone_send_and_sync() {
    assert_shared::<Sender>();
    assert_shared::<Transmitter>();
    fn assert_sent<T: Send>() {}
    assert_sent::<cowire::Frame>();
}

#[test]
fn the_version_is_the_librarys() {
    assert_eq!(3, cowire::version().split('.').count());
}

#[test]
fn bad_options_are_an_error_that_names_them() {
    let options = Options { interfaces: vec!["no\0name".into()], ..Default::default() };
    let error = Transmitter::open(&options).err().unwrap();
    assert!(error.to_string().contains("NUL"), "{error}");
    let error = Transmitter::open_file("/no/such/file.toml").err().unwrap();
    assert!(error.to_string().contains("/no/such/file.toml"), "{error}");
    assert!(std::io::Error::from(error).to_string().contains("/no/such/file.toml"));
}

#[test]
#[ignore = "needs two hosts"]
fn a_datagram_arrives_as_it_was_sent() {
    let tx = open(256, 1);
    for (peer, address) in [peer_v4(), peer_v6()] {
        let sender = tx.sender(&SenderOptions { source_port: 7001, ..Default::default() }).unwrap();
        assert_eq!(7001, sender.source_port());
        sender.try_send(vec![1, 2, 3], address).unwrap();
        sender.try_send("text", address).unwrap();
        let (bytes, source) = next(&peer);
        assert_eq!((vec![1, 2, 3], (own(address), 7001)), (bytes, (source.ip(), source.port())));
        assert_eq!(b"text".to_vec(), next(&peer).0);
        expect_nothing_more(&peer);
    }
    assert_eq!(Some(4), tx.counter("submitted"));
}

#[test]
#[ignore = "needs two hosts"]
fn a_full_sender_gives_the_packet_back() {
    let (tx, sender, peer, address) = one_way(64, 1);
    let mut frames = Vec::new();
    let full = loop {
        match sender.acquire() {
            Ok(frame) => frames.push(frame),
            Err(error) => break error,
        }
    };
    assert!(full.is_would_block(), "{full}");
    match sender.try_send(b"again".to_vec(), address) {
        Err(TrySendError::Full(packet)) => assert_eq!(b"again".to_vec(), packet),
        other => panic!("{other:?}"),
    }
    assert_eq!(0, sender.try_fan_out(b"x", &[address]).unwrap());
    drop(frames);
    assert!(eventually(|| sender.try_send(b"again", address).is_ok()));
    assert_eq!(b"again".to_vec(), next(&peer).0);
}

#[test]
#[ignore = "needs two hosts"]
fn what_can_never_be_sent_says_so() {
    let (tx, sender, peer, address) = one_way(64, 1);
    let long = vec![0; sender.payload_max() + 1];
    match sender.try_send(&long, address) {
        Err(TrySendError::Refused { packet, error }) => {
            assert_eq!(long.len(), packet.len());
            assert_eq!(cowire_sys::EMSGSIZE, error.raw_os_error());
        }
        other => panic!("{other:?}"),
    }
    assert!(sender.try_fan_out(&long, &[address]).is_err());
    expect_nothing_more(&peer);
    let refused: Error = tx
        .sender(&SenderOptions { device: Some("no_such_device".into()), ..Default::default() })
        .err()
        .unwrap();
    assert!(refused.to_string().contains("no_such_device"), "{refused}");
}

#[test]
#[ignore = "needs two hosts"]
fn batches_and_fan_outs_say_how_far_they_came() {
    const MANY: u32 = 3000; // Many times the frames: calls come to an end before the batch does.
    let (tx, sender, peer, address) = one_way(128, 1);
    let batch: Vec<_> = (0..MANY).map(|i| (i.to_be_bytes(), address)).collect();
    let mut done = 0;
    assert!(eventually(|| {
        done += sender.try_send_batch(&batch[done..]).unwrap();
        done == batch.len()
    }));
    for i in 0..MANY {
        assert_eq!(i.to_be_bytes().to_vec(), next(&peer).0);
    }
    let others: Vec<_> = (0..130).map(|_| peer_v4()).collect();
    let to: Vec<_> = others.iter().map(|(_, address)| *address).collect();
    let mut reached = 0;
    assert!(eventually(|| {
        reached += sender.try_fan_out(b"all", &to[reached..]).unwrap();
        reached == to.len()
    }));
    for (socket, _) in &others {
        assert_eq!(b"all".to_vec(), next(socket).0);
    }
    expect_nothing_more(&peer);
}

#[test]
#[ignore = "needs two hosts"]
fn frames_are_written_in_place_and_go_to_many() {
    let (tx, sender, peer, address) = one_way(256, 1);
    let mut frame = sender.acquire().unwrap();
    write!(frame, "number {}", 7).unwrap();
    assert_eq!(b"number 7", frame.as_ref());
    frame.submit(&[address, address]).unwrap();
    let mut frame = sender.acquire().unwrap();
    frame.buffer()[..2].copy_from_slice(b"ab");
    frame.set_len(2);
    frame.submit(&vec![address; 100]).unwrap();
    for _ in 0..2 {
        assert_eq!(b"number 7".to_vec(), next(&peer).0);
    }
    for _ in 0..100 {
        assert_eq!(b"ab".to_vec(), next(&peer).0);
    }
    // With no room for copies the first are not reached, and the frame is the caller's still.
    assert!(settled(&tx));
    let mut frame = sender.acquire().unwrap();
    write!(frame, "late").unwrap();
    let away: Vec<_> = std::iter::from_fn(|| sender.acquire().ok()).collect();
    let refused = frame.submit(&[address, address]).err().unwrap();
    assert!(refused.error.is_would_block(), "{refused}");
    assert_eq!(0, refused.accepted);
    drop(away);
    assert!(refused.frame.submit(&[address]).is_ok());
    assert_eq!(b"late".to_vec(), next(&peer).0);
    expect_nothing_more(&peer);
    drop(sender.acquire().unwrap()); // Unsent: it goes back.
    assert!(settled(&tx));
    assert_eq!(256, std::iter::from_fn(|| sender.acquire().ok()).collect::<Vec<_>>().len());
}

#[test]
#[ignore = "needs two hosts"]
fn frames_choose_for_themselves() {
    const FITS: usize = 1500 - 28;
    let (_tx, sender, peer, address) = one_way(256, 1);
    let second: IpAddr = "10.77.1.7".parse().unwrap();
    let made = Command::new("ip").args(["addr", "replace", "10.77.1.7/32", "dev", "a0"]).status();
    assert!(made.unwrap().success());
    let by_second = DatagramOptions { source: Some(second), ..Default::default() };
    let mut frame = sender.acquire().unwrap();
    write!(frame, "from elsewhere").unwrap();
    frame.submit_with(&[address; 2], &by_second).unwrap(); // A copy, and the frame itself.
    for _ in 0..2 {
        let (bytes, source) = next(&peer);
        assert_eq!((b"from elsewhere".to_vec(), second), (bytes, source.ip()));
    }
    // As long as the device takes, and a byte longer, which otherwise comes in fragments.
    let probe = DatagramOptions { path_mtu_probe: true, ..Default::default() };
    for (length, options) in [(FITS, probe), (FITS + 1, DatagramOptions::default())] {
        let mut frame = sender.acquire().unwrap();
        frame.set_len(length);
        frame.submit_with(&[address], &options).unwrap();
        assert_eq!(length, next(&peer).0.len());
    }
    let mut frame = sender.acquire().unwrap();
    frame.set_len(FITS + 1);
    frame.submit_with(&[address], &probe).unwrap();
    let mut told = None;
    assert!(eventually(|| {
        told = sender.next_error();
        told.is_some()
    }));
    assert_eq!(cowire_sys::EMSGSIZE, told.unwrap().number);
    expect_nothing_more(&peer);
    // What cannot be meant is refused, and the frame is there still.
    let wrong = DatagramOptions { dscp: Some(64), ..Default::default() };
    let refused = sender.acquire().unwrap().submit_with(&[address], &wrong).err().unwrap();
    assert!(refused.error.to_string().contains("dscp is 64"), "{refused}");
    refused.frame.submit(&[address]).unwrap();
    assert_eq!(0, next(&peer).0.len());
}

#[test]
#[ignore = "needs two hosts"]
fn many_threads_share_one_sender_and_wait_for_room() {
    const THREADS: u32 = 8;
    const EACH: u32 = 500;
    let (tx, sender, peer, address) = one_way(128, 2);
    let receiver = thread::spawn(move || {
        let mut numbers = HashSet::new();
        while numbers.len() < (THREADS * EACH) as usize {
            let bytes = next(&peer).0;
            assert!(numbers.insert(u32::from_be_bytes(bytes[..].try_into().unwrap())), "doubled");
        }
        expect_nothing_more(&peer);
    });
    let threads: Vec<_> = (0..THREADS)
        .map(|t| {
            let sender = sender.clone();
            thread::spawn(move || {
                for i in 0..EACH {
                    let mut packet = (t * EACH + i).to_be_bytes();
                    while let Err(refused) = sender.try_send(packet, address) {
                        assert!(refused.is_full(), "{refused}");
                        packet = refused.into_inner();
                        sender.wait(Duration::from_millis(5)).unwrap();
                        assert_eq!(None, sender.next_error());
                    }
                }
            })
        })
        .collect();
    for one in threads {
        one.join().unwrap();
    }
    receiver.join().unwrap();
    assert!(settled(&tx));
    assert_eq!(Some(u64::from(THREADS * EACH)), tx.counter("submitted"));
}

#[test]
#[ignore = "needs two hosts"]
fn what_the_network_says_is_reported() {
    let (tx, sender, closed, address) = one_way(64, 1);
    drop(closed);
    sender.try_send(b"nobody", address).unwrap();
    assert!(sender.wait(DEADLINE).unwrap());
    let mut told = None;
    assert!(eventually(|| {
        told = sender.next_error();
        told.is_some()
    }));
    let told = told.unwrap();
    assert_eq!(Some(address), told.destination);
    assert!(told.from_network);
    assert_eq!(std::io::ErrorKind::ConnectionRefused,
               std::io::Error::from_raw_os_error(told.number).kind());
    assert_eq!(0, sender.errors_dropped());
}

#[test]
#[ignore = "needs two hosts"]
fn an_adopted_socket_receives_the_answers() {
    let tx = open(64, 1);
    let socket = UdpSocket::bind("10.77.1.1:0").unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let sender = tx
        .sender(&SenderOptions { adopt_socket: Some(socket.as_fd()), ..Default::default() })
        .unwrap();
    let (peer, address) = peer_v4();
    sender.try_send(b"question", address).unwrap();
    let (_, from) = next(&peer);
    assert_eq!(socket.local_addr().unwrap(), from);
    peer.send_to(b"answer", from).unwrap();
    assert_eq!(b"answer".to_vec(), next(&socket).0);
}

#[test]
#[ignore = "needs two hosts"]
fn handles_outlive_what_they_came_from() {
    let (peer, address) = peer_v4();
    let sender = open(64, 1).sender(&SenderOptions::default()).unwrap();
    sender.try_send(b"still", address).unwrap();
    let mut frame = sender.acquire().unwrap();
    drop(sender);
    frame.write_all(b"here").unwrap();
    frame.submit(&[address]).unwrap();
    assert_eq!(b"still".to_vec(), next(&peer).0);
    assert_eq!(b"here".to_vec(), next(&peer).0);
}

#[test]
#[ignore = "needs two hosts"]
fn a_second_transmitter_says_that_its_queues_are_taken() {
    let first = open(64, 1);
    let (mut reader, writer) = UnixStream::pair().unwrap();
    let options = Options {
        interfaces: vec!["a0".into()],
        warnings: Warnings::To(writer.as_fd()),
        ..Default::default()
    };
    drop(Transmitter::open(&options).unwrap());
    drop((first, writer));
    let mut said = String::new();
    reader.read_to_string(&mut said).unwrap();
    assert!(said.starts_with("cowire: warning: a0: kernel ("), "{said}");
}

#[test]
#[ignore = "needs two hosts"]
fn explaining_is_json_and_the_kernels_mode_works() {
    let json = cowire::explain("10.77.1.2 dport 9000").unwrap();
    assert!(json.starts_with('{') && json.contains("\"dev\":\"a0\""), "{json}");
    assert!(cowire::explain("nowhere").unwrap_err().to_string().contains("nowhere"));
    let options = Options { mode: Mode::Kernel, interfaces: vec!["a0".into()], ..Default::default() };
    let tx = Transmitter::open(&options).unwrap();
    let (peer, address) = peer_v4();
    tx.sender(&SenderOptions::default()).unwrap().try_send(b"slow", address).unwrap();
    assert_eq!(b"slow".to_vec(), next(&peer).0);
    assert!(eventually(|| tx.counter("kernel_path") == Some(1)));
}
