//! Secrets in requests and responses: values are put into the headers of a request at the last moment, and masked in its response.

use std::sync::Arc;

use http::header::{CONTENT_ENCODING, HeaderName, HeaderValue, TRANSFER_ENCODING};
use http::{Request, Response};
use http_body_util::Limited;
use hyper::body::Incoming;
use wasmtime_wasi_http::{Error, WasiBody};
use wharf_core::bounds;

use super::GrantedRequest;
use crate::sandbox::secrets::mask::Masks;
use crate::sandbox::secrets::placeholders::{Destination, Part};
use crate::sandbox::secrets::watched_body::WatchedBody;

impl GrantedRequest {
    fn destination(&self) -> Destination<'_> {
        Destination { tls: self.tls, host: &self.host, port: self.port }
    }

    /// Puts the values of secrets into the headers of a request that goes to their hosts.
    pub(super) fn put_secrets(&self, request: &mut Request<WasiBody>) -> Result<(), Error> {
        let Some(placeholders) = &self.placeholders else { return Ok(()) };
        let uri = request.uri().clone();
        let strays = placeholders.put(&uri, request.headers_mut(), self.destination()).map_err(|_| {
            self.log.host_line(&format!(
                "wharf: request to {} refused: its headers have more than {} placeholders of secrets; send fewer, or several requests",
                self.host,
                bounds::SECRETS_PUT_MAX
            ));
            Error::HttpRequestHeaderSectionSize(None)
        })?;
        let stray = self.on_stray();
        strays.into_iter().for_each(|(at, part)| stray(at, part));
        Ok(())
    }

    /// Returns what tells and counts that a placeholder goes out as it is.
    fn on_stray(&self) -> impl Fn(usize, Part) + Send + 'static {
        let (log, host_calls, placeholders) =
            (self.log.clone(), Arc::clone(&self.host_calls), self.placeholders.clone());
        let (host, may_have) = (self.host.clone(), placeholders.as_ref().map(|all| all.is_for(self.destination())));
        move |at, part| {
            let Some(grant) = placeholders.as_ref().and_then(|all| all.grant(at)) else { return };
            let name = &grant.name;
            let why = match (part, grant.missing()) {
                (Part::Header, Some(missing)) => format!("this host does not have the value: {missing}"),
                (Part::Header, None) if may_have == Some(true) => {
                    "the value is for other hosts, or the name of a header has it".to_owned()
                }
                (Part::Header, None) => {
                    format!("the value is sent over https only, and only to the `hosts` of [secrets.{name}]")
                }
                (Part::Url | Part::Body, _) => "values are put into headers only".to_owned(),
            };
            log.host_line(&format!(
                "wharf: the placeholder of the secret `{name}` went out as it is, in the {} of a request to {host}: {why}",
                part.as_str()
            ));
            host_calls.placeholder_sent(name.as_str(), part.as_str());
        }
    }

    /// Returns a request's body, watched for placeholders if there are any.
    pub(super) fn watched(&self, body: Limited<WasiBody>) -> WatchedBody<Limited<WasiBody>> {
        match &self.placeholders {
            Some(placeholders) => {
                let stray = self.on_stray();
                WatchedBody::new(body, Arc::clone(placeholders), move |at| stray(at, Part::Body))
            }
            None => WatchedBody::unwatched(body),
        }
    }

    /// Returns what masks the response: `None` if no secret may be sent to where it comes from.
    pub(super) async fn masks(&self) -> Result<Option<Arc<Masks>>, Error> {
        let made = self.env.masks.of_response(self.tls, &self.host, self.port).await;
        made.map_err(|_| {
            Error::InternalError(Some("the host could not mask secrets; this is a bug of the host".to_owned()))
        })
    }

    /// Masks the values of secrets in the headers of a response. A response that hides its body from the masks is refused.
    pub(super) fn mask_headers(&self, masks: &Masks, response: &mut Response<Incoming>) -> Result<(), Error> {
        let is_coded = |name: HeaderName, plain: &str| {
            let values = response.headers().get_all(name);
            let is_plain = |value: &HeaderValue| value.as_bytes().trim_ascii().eq_ignore_ascii_case(plain.as_bytes());
            values.iter().any(|value| !is_plain(value))
        };
        if is_coded(CONTENT_ENCODING, "identity") {
            self.log.host_line(&format!(
                "wharf: the response of {0} refused: it is compressed, which was not asked for, and may hide a secret; have the \
                 server heed `accept-encoding: identity`, or take {0} out of the `hosts` of the secret",
                self.host
            ));
            // Nothing of the response is in the error: it may be the value.
            return Err(Error::HttpResponseContentCoding(None));
        }
        if is_coded(TRANSFER_ENCODING, "chunked") {
            self.log.host_line(&format!(
                "wharf: the response of {0} refused: its transfer-encoding is another one than `chunked` and may hide a secret; have the \
                 server send it without, or take {0} out of the `hosts` of the secret",
                self.host
            ));
            return Err(Error::HttpResponseTransferCoding(None));
        }
        let found = masks.headers(response.headers_mut());
        if !found.is_empty() {
            (self.on_masked())(&found);
        }
        Ok(())
    }

    /// Returns what tells that a response had the values of secrets.
    pub(super) fn on_masked(&self) -> impl FnOnce(&[usize]) + Send + 'static {
        let (log, placeholders, host) = (self.log.clone(), self.placeholders.clone(), self.host.clone());
        move |found| {
            for (_, at) in found.iter().enumerate().filter(|(place, at)| !found[..*place].contains(at)) {
                if let Some(grant) = placeholders.as_ref().and_then(|all| all.grant(*at)) {
                    log.host_line(&format!(
                        "wharf: a response of {host} had the secret `{}`: it was masked",
                        grant.name
                    ));
                }
            }
        }
    }
}
