//! Those who receive, and how long it takes them.

use std::{
    error::Error,
    net::SocketAddr,
    time::{Duration, Instant},
};

use electric_satellite::{
    client::{Connector, Resume},
    session::{ClientId, Token},
    transport::{Event, Limits},
    wire::{Message as Satellite, Version},
};
use futures_util::StreamExt;
use tokio::{io::AsyncReadExt, net::TcpStream};
use tokio_tungstenite::{
    client_async_with_config,
    tungstenite::{ClientRequestBuilder, http::Uri, protocol::WebSocketConfig},
};

use crate::block_on;

type Took = Result<Duration, Box<dyn Error>>;

/// How much is read of bare bytes at a time: so much that more is not faster.
const READ: usize = 128 * 1024;

/// Bytes, until they end.
pub(super) fn receive_bytes(address: SocketAddr) -> Took {
    block_on(async {
        let mut stream = TcpStream::connect(address).await?;
        let mut buffer = vec![0; READ];
        let start = Instant::now();
        while stream.read(&mut buffer).await? > 0 {}
        Ok(start.elapsed())
    })
}

/// So many messages of a bare WebSocket.
pub(super) fn receive_frames(address: SocketAddr, messages: usize) -> Took {
    block_on(async {
        let stream = TcpStream::connect(address).await?;
        let uri: Uri = format!("ws://{address}/ws").parse()?;
        let request = ClientRequestBuilder::new(uri).with_sub_protocol(Version::V0_12.to_string());
        let config = WebSocketConfig::default().read_buffer_size(Limits::client().read_buffer);
        let (mut socket, _) = client_async_with_config(request, stream, Some(config)).await?;
        let start = Instant::now();
        for _ in 0..messages {
            socket.next().await.ok_or("too few")??;
        }
        Ok(start.elapsed())
    })
}

/// So many messages of a client, each typed and delivered.
pub(super) fn receive_typed(address: SocketAddr, messages: usize) -> Took {
    block_on(async {
        let connector = Connector::new(&format!("ws://{address}"))?;
        let token = Token::new("a token")?;
        let mut connection = connector.connect(&ClientId::random(), token).await?;
        connection.start_replication(&mut Resume::default(), Duration::from_secs(10)).await?;
        let mut start = Instant::now();
        // The relation comes first.
        for nth in 0..=messages {
            let Some(Event::Message(message)) = connection.recv().await else {
                return Err(format!("too few: {:?}", connection.end()).into());
            };
            match message {
                Satellite::Relation(_) if nth == 0 => start = Instant::now(),
                Satellite::OpLog(_) => {}
                other => return Err(other.name().into()),
            }
        }
        Ok(start.elapsed())
    })
}
