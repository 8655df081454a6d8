"""Voyager: level-of-detail trees and cuts in the cloud, splatting on the client."""
