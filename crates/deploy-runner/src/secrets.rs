//! The secrets that the output must not show. The set grows while the steps run, because the tool's
//! credentials are renewed.

use bytes::Bytes;
use relay_engine::Masker;
use tokio::sync::watch;
use zeroize::Zeroizing;

/// The secrets of a deployment. Clones share them.
#[derive(Clone)]
pub(crate) struct Secrets(watch::Sender<Vec<Zeroizing<Vec<u8>>>>);

impl Secrets {
    /// Creates an empty set.
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(Vec::new()))
    }

    /// Adds a secret, which is masked from now on.
    pub(crate) fn add(&self, secret: Vec<u8>) {
        self.0.send_modify(|all| all.push(Zeroizing::new(secret)));
    }

    /// Creates a masker for one stream.
    pub(crate) fn masker(&self) -> StreamMasker {
        let mut receiver = self.0.subscribe();
        let masker = Masker::new(&receiver.borrow_and_update());
        StreamMasker { receiver, masker }
    }
}

/// Masks one stream or text after the other, including secrets added after the stream began.
pub(crate) struct StreamMasker {
    receiver: watch::Receiver<Vec<Zeroizing<Vec<u8>>>>,
    masker: Masker,
}

impl StreamMasker {
    /// Masks `bytes`. A possible start of a secret is held back until the next call. Without
    /// secrets, the same bytes come back.
    pub(crate) fn push(&mut self, bytes: Bytes) -> Bytes {
        self.learn();
        if self.masker.is_idle() { bytes } else { self.masker.push(&bytes).into() }
    }

    /// Returns the bytes that were held back, masked, at the end of the stream.
    pub(crate) fn finish(&mut self) -> Bytes {
        self.learn();
        self.masker.finish().into()
    }

    /// Masks a whole text, after the end of whatever came before.
    pub(crate) fn mask(&mut self, text: &[u8]) -> Vec<u8> {
        self.learn();
        let mut masked = self.masker.push(text);
        masked.extend(self.masker.finish());
        masked
    }

    fn learn(&mut self) {
        if self.receiver.has_changed().unwrap_or(false) {
            self.masker.learn(&self.receiver.borrow_and_update());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_masked_from_when_it_is_known() {
        let secrets = Secrets::new();
        let mut masker = secrets.masker();
        assert_eq!(masker.push(Bytes::from_static(b"later ")), "later ");
        secrets.add(b"later".to_vec());
        assert_eq!(
            [masker.push(Bytes::from_static(b"la")), masker.push(Bytes::from_static(b"ter")), masker.finish()].concat(),
            b"***"
        );
        assert_eq!(secrets.masker().push(Bytes::from_static(b"later ")), "*** ");
    }
}
