//! Volumes of virtual pods: one file tree per volume, mounted into the containers that ask for it.

use crate::environment::{Addresses, ConfigError, References, pod_field};
use crate::files::Files;
use bytes::Bytes;
use k8s_openapi::api::core::v1::{Container, DownwardAPIVolumeFile, KeyToPath, Pod, Volume};
use std::collections::BTreeMap;

/// Files of a service-account volume that the kubelet has fetched.
#[derive(Clone, Debug, Default)]
pub(crate) struct Credentials {
    /// The bound token.
    pub(crate) token: String,
}

/// What volumes are made from.
pub(crate) struct Sources<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) addresses: &'a Addresses<'a>,
    pub(crate) references: &'a References,
    pub(crate) credentials: &'a Credentials,
}

type Content = BTreeMap<String, (Bytes, u32)>;

/// Fills (or fills anew) the tree of one volume. A volume that only programs write to keeps its content.
pub(crate) fn fill(volume: &Volume, files: &Files, sources: &Sources<'_>) -> Result<(), ConfigError> {
    let Some(content) = content(volume, sources)? else { return Ok(()) };
    files.clear();
    for (path, (bytes, mode)) in content {
        files.mount(&format!("/{path}"), bytes, mode);
    }
    Ok(())
}

fn content(volume: &Volume, sources: &Sources<'_>) -> Result<Option<Content>, ConfigError> {
    let mut content = Content::new();
    if let Some(source) = &volume.config_map {
        let mode = source.default_mode.unwrap_or(0o644) as u32;
        config_map(&mut content, sources, &source.name, source.items.as_deref(), source.optional, mode)?;
    } else if let Some(source) = &volume.secret {
        let mode = source.default_mode.unwrap_or(0o644) as u32;
        let name = source.secret_name.as_deref().unwrap_or_default();
        secret(&mut content, sources, name, source.items.as_deref(), source.optional, mode)?;
    } else if let Some(source) = &volume.downward_api {
        downward(&mut content, sources, source.items.as_deref().unwrap_or_default(), source.default_mode)?;
    } else if let Some(source) = &volume.projected {
        let mode = source.default_mode.unwrap_or(0o644) as u32;
        for source in source.sources.iter().flatten() {
            if let Some(map) = &source.config_map {
                config_map(&mut content, sources, &map.name, map.items.as_deref(), map.optional, mode)?;
            }
            if let Some(from) = &source.secret {
                secret(&mut content, sources, &from.name, from.items.as_deref(), from.optional, mode)?;
            }
            if let Some(api) = &source.downward_api {
                downward(&mut content, sources, api.items.as_deref().unwrap_or_default(), Some(mode as i32))?;
            }
            if let Some(token) = &source.service_account_token {
                content.insert(token.path.clone(), (sources.credentials.token.clone().into(), 0o600));
            }
        }
    } else if volume.empty_dir.is_some() || volume.ephemeral.is_some() || volume.persistent_volume_claim.is_some() {
        return Ok(None);
    } else {
        let name = &volume.name;
        return Err(ConfigError(format!(
            "volume {name:?}: virtual pods mount configMap, secret, downwardAPI, projected and emptyDir volumes"
        )));
    }
    Ok(Some(content))
}

fn select<'a>(
    content: &mut Content,
    available: impl Fn(&str) -> Option<Bytes> + 'a,
    all: impl Iterator<Item = String>,
    items: Option<&[KeyToPath]>,
    optional: bool,
    mode: u32,
    what: &str,
) -> Result<(), ConfigError> {
    match items {
        None => content.extend(all.filter_map(|key| Some((key.clone(), (available(&key)?, mode))))),
        Some(items) => {
            for item in items {
                match available(&item.key) {
                    Some(bytes) => {
                        let mode = item.mode.map_or(mode, |mode| mode as u32);
                        content.insert(item.path.clone(), (bytes, mode));
                    }
                    None if optional => {}
                    None => return Err(ConfigError(format!("references non-existent {what} key: {}", item.key))),
                }
            }
        }
    }
    Ok(())
}

fn config_map(
    content: &mut Content,
    sources: &Sources<'_>,
    name: &str,
    items: Option<&[KeyToPath]>,
    optional: Option<bool>,
    mode: u32,
) -> Result<(), ConfigError> {
    let optional = optional == Some(true);
    let Some(map) = sources.references.config_maps.get(name) else {
        return if optional { Ok(()) } else { Err(ConfigError(format!("configmap {name:?} not found"))) };
    };
    let text = map.data.iter().flatten().map(|(key, value)| (key.clone(), Bytes::from(value.clone())));
    let binary = map.binary_data.iter().flatten().map(|(key, value)| (key.clone(), Bytes::from(value.0.clone())));
    let data: BTreeMap<String, Bytes> = text.chain(binary).collect();
    let keys = data.keys().cloned().collect::<Vec<_>>();
    select(content, move |key| data.get(key).cloned(), keys.into_iter(), items, optional, mode, "config")
}

fn secret(
    content: &mut Content,
    sources: &Sources<'_>,
    name: &str,
    items: Option<&[KeyToPath]>,
    optional: Option<bool>,
    mode: u32,
) -> Result<(), ConfigError> {
    let optional = optional == Some(true);
    let Some(secret) = sources.references.secrets.get(name) else {
        return if optional { Ok(()) } else { Err(ConfigError(format!("secret {name:?} not found"))) };
    };
    let data: BTreeMap<String, Bytes> =
        secret.data.iter().flatten().map(|(key, value)| (key.clone(), Bytes::from(value.0.clone()))).collect();
    let keys = data.keys().cloned().collect::<Vec<_>>();
    select(content, move |key| data.get(key).cloned(), keys.into_iter(), items, optional, mode, "secret")
}

fn downward(
    content: &mut Content,
    sources: &Sources<'_>,
    items: &[DownwardAPIVolumeFile],
    mode: Option<i32>,
) -> Result<(), ConfigError> {
    for item in items {
        let Some(field) = &item.field_ref else { continue };
        let value = pod_field(sources.pod, sources.addresses, &field.field_path)
            .ok_or_else(|| ConfigError(format!("unsupported fieldPath: {}", field.field_path)))?;
        let mode = item.mode.or(mode).unwrap_or(0o644) as u32;
        content.insert(item.path.clone(), (value.into(), mode));
    }
    Ok(())
}

/// Mounts the pod's volumes into one container's files.
pub(crate) fn mount(
    container: &Container,
    files: &Files,
    volumes: &BTreeMap<String, Files>,
) -> Result<(), ConfigError> {
    for mount in container.volume_mounts.iter().flatten() {
        let Some(volume) = volumes.get(&mount.name) else {
            return Err(ConfigError(format!("volume {:?} is not defined in the pod", mount.name)));
        };
        let sub_path = mount.sub_path.as_deref().unwrap_or("/");
        if let Ok(bytes) = volume.read(sub_path) {
            files.mount(&mount.mount_path, bytes, 0o644);
        } else {
            files.mount_tree(&mount.mount_path, volume.clone(), sub_path, mount.read_only == Some(true));
        }
    }
    Ok(())
}

/// Names of the ConfigMaps and Secrets that a pod's containers and volumes refer to.
pub(crate) fn referenced(pod: &Pod) -> (Vec<String>, Vec<String>) {
    let (mut maps, mut secrets) = (Vec::new(), Vec::new());
    let Some(spec) = &pod.spec else { return (maps, secrets) };
    for container in spec.init_containers.iter().flatten().chain(&spec.containers) {
        for source in container.env_from.iter().flatten() {
            maps.extend(source.config_map_ref.iter().map(|reference| reference.name.clone()));
            secrets.extend(source.secret_ref.iter().map(|reference| reference.name.clone()));
        }
        for source in container.env.iter().flatten().filter_map(|variable| variable.value_from.as_ref()) {
            maps.extend(source.config_map_key_ref.iter().map(|reference| reference.name.clone()));
            secrets.extend(source.secret_key_ref.iter().map(|reference| reference.name.clone()));
        }
    }
    for volume in spec.volumes.iter().flatten() {
        maps.extend(volume.config_map.iter().map(|source| source.name.clone()));
        secrets.extend(volume.secret.iter().filter_map(|source| source.secret_name.clone()));
        for source in volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten()) {
            maps.extend(source.config_map.iter().map(|source| source.name.clone()));
            secrets.extend(source.secret.iter().map(|source| source.name.clone()));
        }
    }
    (maps, secrets)
}
