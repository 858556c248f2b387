//! Where to listen for gdb, as a user writes it. Nothing but this host: whoever can connect can do anything
//! with the guest.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use crate::control_characters::spell_out_path;

/// Where to listen for gdb.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A UNIX socket, which only this user can connect to.
    Unix(PathBuf),
    /// A TCP port of this host, which every user of it can connect to. Port 0 means any that is free.
    Tcp(SocketAddr),
}

/// Why a text is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAnAddress {
    /// It is empty.
    #[error("neither the path of a UNIX socket nor tcp:127.0.0.1:PORT")]
    Empty,
    /// What follows `tcp:` is no address and port.
    #[error("no address and port behind tcp:, as in tcp:127.0.0.1:1234")]
    NoPort,
    /// It looks like an address and a port, and is not said to be one.
    #[error("{0} would be a UNIX socket of that name; a port is tcp:127.0.0.1:1234")]
    NoPrefix(String),
    /// It can be reached from other hosts.
    #[error(
        "{0} can be reached from elsewhere, and whoever connects can do anything with the guest; \
         use a loopback address, such as tcp:127.0.0.1:1234, and forward it by ssh"
    )]
    NotLoopback(IpAddr),
}

impl FromStr for Address {
    type Err = NotAnAddress;

    fn from_str(text: &str) -> Result<Self, NotAnAddress> {
        let Some(address) = text.strip_prefix("tcp:") else {
            return match text {
                "" => Err(NotAnAddress::Empty),
                port if is_like_a_port(port) => Err(NotAnAddress::NoPrefix(port.to_owned())),
                path => Ok(Self::Unix(path.into())),
            };
        };
        let address: SocketAddr = address.parse().map_err(|_| NotAnAddress::NoPort)?;
        match address.ip() {
            ip if ip.is_loopback() => Ok(Self::Tcp(address)),
            ip => Err(NotAnAddress::NotLoopback(ip)),
        }
    }
}

/// Whether `text` is what gdb takes for an address and a port, such as `:1234`.
fn is_like_a_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    !host.contains('/') && port.parse::<u16>().is_ok()
}

/// As gdb takes it: `target remote ADDRESS`.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => f.write_str(&spell_out_path(path)),
            Self::Tcp(address) => write!(f, "{address}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_this_host_is_listened_at() {
        let parse = |text: &str| text.parse::<Address>();
        assert_eq!(parse("gdb.sock"), Ok(Address::Unix("gdb.sock".into())));
        assert_eq!(
            parse("tcp:127.0.0.1:1234").unwrap().to_string(),
            "127.0.0.1:1234"
        );
        assert_eq!(parse("tcp:[::1]:0").unwrap().to_string(), "[::1]:0");
        assert_eq!(parse(""), Err(NotAnAddress::Empty));
        for text in ["tcp:", "tcp:1234", "tcp:localhost:1", "tcp:127.0.0.1:70000"] {
            assert_eq!(parse(text), Err(NotAnAddress::NoPort), "{text}");
        }
        for text in [":1234", "127.0.0.1:1234", "localhost:1"] {
            assert_eq!(parse(text), Err(NotAnAddress::NoPrefix(text.into())));
        }
        assert!(parse("./a:1234").is_ok());
        let everybody = IpAddr::from([0, 0, 0, 0]);
        assert_eq!(
            parse("tcp:0.0.0.0:1234"),
            Err(NotAnAddress::NotLoopback(everybody))
        );
    }
}
