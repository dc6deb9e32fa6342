//! Answers that are whole and answers that are not, and a real server of the site.

use std::net::TcpListener;
use std::thread;

use rustls::ServerConnection;
use vitalgate_domain::GatewayId;
use vitalgate_trust::{ClientCertificate, LocalAuthority, server_config};

use super::*;

fn read(answered: &[u8], bytes_max: u64) -> Result<Vec<u8>, FetchError> {
    let mut body = Vec::new();
    answer(&mut &answered[..], &at_most(bytes_max), &mut body)?;
    Ok(body)
}

fn at_most(bytes_max: u64) -> impl Fn(u64) -> Result<(), FetchError> {
    move |bytes| if bytes > bytes_max { Err(FetchError::TooLarge(bytes_max)) } else { Ok(()) }
}

/// As many bytes as were said, no more; everything else is an error and not a file.
#[test]
fn an_answer_is_taken_whole_or_not() {
    assert_eq!(read(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello, and more", 5).unwrap(), b"hello");
    assert!(matches!(read(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nhello", 10), Err(FetchError::Broken(_))));
    assert!(matches!(read(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n", 5), Err(FetchError::TooLarge(5))));
    assert!(matches!(read(b"HTTP/1.1 302 Found\r\nlocation: x\r\n\r\n", 5), Err(FetchError::Answer(_))));
    assert!(matches!(read(b"HTTP/1.1 200 OK\r\n\r\n", 5), Err(FetchError::Answer(_))));
    assert!(matches!(read(&[b'x'; 40_000], 5), Err(FetchError::Answer(_))));
    assert!(matches!(read(b"HTTP", 5), Err(FetchError::Broken(_))));
}

/// A file that would take the room of readings is turned away by its announced size: not one byte of it is kept.
#[test]
fn a_file_without_room_is_not_fetched() {
    let folder = tempfile::tempdir().unwrap();
    let places = Places::under(folder.path());
    std::fs::create_dir_all(places.at(path::FETCH)).unwrap();
    let from = |kept_free_mib| From { url: String::new(), bytes_max: 10, kept_free_mib, authorities: None };
    let mut kept = Vec::new();
    let answered = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";
    let refused = answer(&mut &answered[..], &|bytes| from(u64::MAX).has_room(&places, bytes), &mut kept);
    assert!(matches!(refused, Err(FetchError::NoRoom(_))) && kept.is_empty(), "{refused:?}");
    // It lies there twice before it is installed.
    let free_mib = room::free_mib(folder.path()).unwrap();
    assert!(matches!(from(0).has_room(&places, free_mib << 20), Err(FetchError::NoRoom(_))));
    from(0).has_room(&places, free_mib << 18).unwrap();
}

/// Only https, only plain characters, nobody's password.
#[test]
fn other_urls_are_refused_before_anything_is_asked() {
    let folder = tempfile::tempdir().unwrap();
    let config = Arc::new(configuration(&Site::new().authority, folder.path()).unwrap());
    for url in ["http://a/b", "https://", "https://a b/", "https://u:p@a/", "https://a/\r\nx: y", "file:///etc/passwd"] {
        assert!(matches!(get(url, Arc::clone(&config), &at_most(1), &mut io::sink()), Err(FetchError::Url(_))), "{url}");
    }
}

/// The authority of a site and a server that it speaks for.
struct Site {
    authority: String,
    local: LocalAuthority,
    _folder: tempfile::TempDir,
}

impl Site {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let local = LocalAuthority::open_or_create(folder.path(), &GatewayId::new("practice-01").unwrap()).unwrap();
        Self { authority: local.ca_certificate_pem().to_owned(), local, _folder: folder }
    }

    /// Serves one connection: `answered`, whatever is asked for. Gives the port.
    fn serve(&self, answered: &'static [u8]) -> u16 {
        let certificate = self.local.issue_server(&["localhost".to_owned()]).unwrap();
        let config = server_config(certificate.chain, certificate.key, None, ClientCertificate::Optional).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            let (socket, _) = listener.accept().unwrap();
            let mut stream = StreamOwned::new(ServerConnection::new(config).unwrap(), socket);
            let mut request = [0; 1024];
            // A client that does not trust this server goes before it asks.
            let Ok(bytes) = stream.read(&mut request) else { return };
            assert!(request[..bytes].starts_with(b"GET /v/SHA256SUMS HTTP/1.0\r\n"));
            stream.write_all(answered).unwrap();
            stream.conn.send_close_notify();
            stream.flush().unwrap();
        });
        port
    }

    fn fetch(&self, port: u16) -> Result<Vec<u8>, FetchError> {
        let folder = tempfile::tempdir().unwrap();
        let config = Arc::new(configuration(&self.authority, folder.path())?);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing stays beside the file");
        let mut body = Vec::new();
        get(&format!("https://localhost:{port}/v/SHA256SUMS"), config, &at_most(100), &mut body).map(|()| body)
    }
}

/// The site's own server is believed by its authority, and a stranger in its place is not.
#[test]
fn only_the_site_s_authority_is_believed() {
    let (site, stranger) = (Site::new(), Site::new());
    let answered = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc";
    assert_eq!(site.fetch(site.serve(answered)).unwrap(), b"abc");
    let refused = site.fetch(stranger.serve(answered)).unwrap_err();
    assert!(matches!(refused, FetchError::Stranger { .. }) && refused.to_string().contains("check ca_pem"), "{refused}");
}
